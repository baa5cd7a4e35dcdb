// A candidate on client-go's leader election, with the settings that its package documents: what ours is measured
// against. It says what happens in JSON lines with CLOCK_BOOTTIME, as the other candidates do.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

type line struct {
	At     float64 `json:"at"`
	Event  string  `json:"event"`
	Holder string  `json:"holder,omitempty"`
}

func say(event, holder string) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err)
	}
	text, err := json.Marshal(line{At: float64(now.Sec) + float64(now.Nsec)/1e9, Event: event, Holder: holder})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of a kubeconfig")
	lease := flag.String("lease", "", "name of the Lease")
	identity := flag.String("identity", "", "who we are")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	client := kubernetes.NewForConfigOrDie(config)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: *lease, Namespace: "default"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: *identity},
		},
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { say("leading", "") },
			OnStoppedLeading: func() { say("stopped", "") },
			OnNewLeader: func(holder string) {
				if holder != *identity {
					say("following", holder)
				}
			},
		},
	})
}
