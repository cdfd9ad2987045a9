// Command bench measures provider and rotator as they are shipped: the stripped
// binaries, as processes of their own, with a real Vault and a real API server on
// the loopback interface. The provider is called over its socket as the driver
// calls it.
//
// Every figure that depends on the machine stands beside a floor from the same
// run: the same requests to Vault, and to the API server where the provider
// makes one, sent by a bare HTTP client with kept-alive connections. Rounds of
// floor and provider alternate, so that what else the machine does hits both.
//
//   - A cold mount is the first one of a pod and of its service account, so no
//     cache can help.
//   - A repeated mount is the same request once more, as the kubelet sends it
//     every minute or so for each volume of each running pod.
//
// The audit headers are measured separately: logins and decrypts with and without
// them alternate.
//
// The rotator is measured in the same way, a process of its own that rotates
// 10,000 and 50,000 Secrets, against the list and the patches that it takes. Its
// limit on requests per second (--kube-qps, 50 by default, which is what decides
// in production) is lifted.
//
// Repeated mounts are also measured while a flood of requests comes to each HTTP port
// of provider and exporter, against the same flood to a bare listener in another process.
//
// secretmanager status, with 10,000 Secrets, is measured against the list alone.
//
// Every answer is compared with the plaintext; a wrong one ends the run. Exit
// code 1 means that something does not work. A budget that is missed is a result
// like any other, and the code is 0.
//
// Progress goes to standard error, the report to standard output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// The main goroutine starts the children, and on Linux they end with the thread
// that started them: it stays on the main one.
func init() { runtime.LockOSThread() }

type options struct {
	output string
	rounds int
	limit  time.Duration
	what   string
	small  bool
}

// measures reports whether the named part is to be measured.
func (o options) measures(what string) bool { return o.what == "all" || o.what == what }

func main() {
	if len(os.Args) > 1 && os.Args[1] == floodChild {
		os.Exit(runFloodChild(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.output, "o", "table", "`format` of the report: table or json")
	flag.IntVar(&o.rounds, "rounds", 4, "how many `rounds` of all measurements to make, a second or less for each")
	flag.DurationVar(&o.limit, "limit", 2*time.Minute, "begin no round that would go on for longer than this `time`")
	flag.StringVar(&o.what, "what", "all", "what to measure: `provider`, audit, flood, rotator, status or all")
	flag.BoolVar(&o.small, "small", false, "leave out the rotation of 50,000 Secrets, which takes most of the time")
	flag.Parse()
	if flag.NArg() > 0 ||
		!slices.Contains([]string{"all", "provider", "audit", "flood", "rotator", "status"}, o.what) || o.rounds < 1 ||
		o.output != "table" && o.output != "json" {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "\ninterrupted; everything that was started has ended")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\nbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(stderr, "%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	dir, err := os.MkdirTemp("", "secretmanager-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	say("building the programs, stripped")
	sizes, err := build(ctx, dir, say)
	if err != nil {
		return err
	}
	say("starting a Vault and an API server")
	e, err := newEnvironment(ctx)
	if err != nil {
		return err
	}
	defer e.close()
	r := report{Machine: describe(ctx, e), Sizes: sizes}

	if o.measures("provider") {
		say("memory, and requests per mount")
		var empty time.Duration
		if r.Memory, r.Requests, empty, err = memory(ctx, e, dir); err != nil {
			return err
		}
		r.EmptyCall = milliseconds(empty)
		cells, parts, err := measure(ctx, e, dir, o, say)
		if err != nil {
			return err
		}
		r.ColdMount = parts
		for _, c := range cells {
			r.Rows = append(r.Rows, c.row())
		}
		r.Budgets = budgets(r)
	}
	if o.measures("audit") {
		if r.Audit, err = auditHeaders(ctx, e, say); err != nil {
			return err
		}
		r.Budgets = append(r.Budgets, auditBudget(r.Audit))
	}
	if o.measures("flood") {
		if r.Floods, err = floods(ctx, e, dir, o, say); err != nil {
			return err
		}
		r.Budgets = append(r.Budgets, floodBudgets(r.Floods)...)
	}
	if o.measures("rotator") || o.measures("status") {
		if r.Rotations, r.Status, err = manySecrets(ctx, e, dir, o, say); err != nil {
			return err
		}
		r.Budgets = append(r.Budgets, rotationBudgets(r.Rotations)...)
		r.Budgets = append(r.Budgets, r.Status.budgets()...)
	}
	say("done")
	if o.output == "json" {
		return r.json(stdout)
	}
	return r.table(stdout)
}
