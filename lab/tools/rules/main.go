// The part of `promtool check rules` that judges a file of rules: Prometheus' own parser.
//
// promtool itself links every service discovery of Prometheus; this program needs none of them.
package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	const usage = "usage: check-rules FILE..."
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if os.Args[1] == "--help" {
		fmt.Println(usage)
		return
	}
	failed := false
	for _, file := range os.Args[1:] {
		groups, errors := rulefmt.ParseFile(
			file, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.Default(),
		)
		for _, each := range errors {
			slog.Error("refused", "file", file, "error", each)
			failed = true
		}
		if len(errors) == 0 {
			rules := 0
			for _, group := range groups.Groups {
				rules += len(group.Rules)
			}
			fmt.Printf("%s: %d rules\n", file, rules)
		}
	}
	if failed {
		os.Exit(1)
	}
}
