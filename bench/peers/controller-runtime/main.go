// A controller on controller-runtime that does what ours does in the benchmark: for every ConfigMap of a label it makes
// an annotation say what the data is. Defaults but for the number of workers and the client's own rate limit, which is
// lifted: ours has none. It says what happens in JSON lines with CLOCK_BOOTTIME.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

func say(event string) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err)
	}
	text, _ := json.Marshal(map[string]any{"at": float64(now.Sec) + float64(now.Nsec)/1e9, "event": event})
	fmt.Println(string(text))
}

type stamper struct {
	client     client.Client
	annotation string
	expected   int
	first      sync.Once
	mutex      sync.Mutex
	seen       map[types.NamespacedName]struct{}
}

func (s *stamper) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	s.first.Do(func() { say("first") })
	var found corev1.ConfigMap
	if err := s.client.Get(ctx, request.NamespacedName, &found); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if found.Annotations[s.annotation] != found.Data["v"] {
		base := found.DeepCopy()
		if found.Annotations == nil {
			found.Annotations = map[string]string{}
		}
		found.Annotations[s.annotation] = found.Data["v"]
		patch := client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})
		if err := s.client.Patch(ctx, &found, patch, client.FieldOwner(s.annotation)); err != nil {
			return ctrl.Result{}, err
		}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, again := s.seen[request.NamespacedName]; !again {
		s.seen[request.NamespacedName] = struct{}{}
		if len(s.seen) == s.expected {
			say("done")
		}
	}
	return ctrl.Result{}, nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	annotation := flag.String("annotation", "", "which annotation to keep")
	label := flag.String("label", "", "label selector")
	expected := flag.Int("expected", 0, "say done after so many objects")
	workers := flag.Int("workers", 8, "concurrent reconciles")
	flag.Parse()
	say("started")
	ctrl.SetLogger(zap.New())
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	config.QPS = -1
	selector, err := labels.Parse(*label)
	must(err)
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache:   cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.ConfigMap{}: {Label: selector}}},
	})
	must(err)
	reconciler := &stamper{
		client: manager.GetClient(), annotation: *annotation, expected: *expected,
		seen: map[types.NamespacedName]struct{}{},
	}
	must(ctrl.NewControllerManagedBy(manager).For(&corev1.ConfigMap{}).Named("stamper").
		WithOptions(controller.Options{MaxConcurrentReconciles: *workers}).Complete(reconciler))
	go func() {
		if manager.GetCache().WaitForCacheSync(context.Background()) {
			say("synced")
		}
	}()
	must(manager.Start(ctrl.SetupSignalHandler()))
}
