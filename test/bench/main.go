// Command bench measures provider and rotator as they are released: stripped binaries in
// their own processes, with a real Vault and a real API server on the loopback interface.
// It calls the provider over its socket, as the driver does.
//
// Every number that depends on the machine has a floor from the same run: the same
// requests to Vault, and to the API server if the provider sends one, by a bare HTTP client
// with kept-alive connections. Rounds of floor and provider alternate, so that other load
// on the machine affects both.
//
//   - A cold mount is the first one of a pod and of its service account, so that no cache
//     has its response.
//   - A repeated mount is the same request again, as the kubelet sends it about every
//     minute for each volume of each running pod.
//
// The audit headers are measured separately: logins and decrypts with and without them
// alternate.
//
// Inline authentication is measured with OpenBao: one request that contains the login, and a login
// and a decrypt, each with the bare client and in mounts of a provider.
//
// The rotator is measured in the same way: a process rotates 10,000 and 50,000 Secrets. Its
// floor is the list and the patches. Its limit on requests per second (--kube-qps, 50 by
// default, which dominates in production) is lifted.
//
// Repeated mounts are also measured during a flood of requests to each HTTP port of
// provider and exporter. Their floor is the same flood of a bare listener in another
// process.
//
// The rotator's admission policy is measured separately: rotations with and without it alternate,
// and pairs without it (A/A) show how much two equal rotations differ.
//
// secretmanager status is measured with 10,000 Secrets. Its floor is the list.
//
// Every response is compared with the plaintext, and a wrong one ends the run. The exit
// code is 1 if something fails. It is 0 even if a budget is missed.
//
// Progress is written to standard error, the report to standard output.
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

// On Linux child processes end with the thread that started them. So the main goroutine,
// which starts them, stays on the main thread.
func init() { runtime.LockOSThread() }

type options struct {
	output  string
	rounds  int
	limit   time.Duration
	what    string
	small   bool
	secrets int // instead of those numbers
}

// measures reports whether to measure the named part.
func (o options) measures(what string) bool { return o.what == "all" || o.what == what }

func main() {
	if len(os.Args) > 1 && os.Args[1] == floodChild {
		os.Exit(runFloodChild(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.output, "o", "table", "`format` of the report: table or json")
	flag.IntVar(&o.rounds, "rounds", 4, "`number` of rounds of all measurements, each of at most a second")
	flag.DurationVar(&o.limit, "limit", 2*time.Minute, "maximum `duration` of the rounds")
	flag.StringVar(&o.what, "what", "all",
		"`part` to measure: provider, audit, inline, flood, admission, rotator, status or all")
	flag.BoolVar(&o.small, "small", false, "omit the rotation of 50,000 Secrets, which takes most of the time")
	flag.IntVar(&o.secrets, "secrets", 0, "`number` of Secrets to rotate, instead of 10,000 and 50,000")
	flag.Parse()
	if flag.NArg() > 0 ||
		!slices.Contains([]string{"all", "provider", "audit", "inline", "flood", "admission", "rotator", "status"}, o.what) ||
		o.rounds < 1 ||
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
		fmt.Fprintln(os.Stderr, "\ninterrupted; all started processes have ended")
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
	if o.measures("inline") {
		if r.Inline, err = inlineAuth(ctx, e, dir, o, say); err != nil {
			return err
		}
	}
	if o.measures("flood") {
		if r.Floods, err = floods(ctx, e, dir, o, say); err != nil {
			return err
		}
		r.Budgets = append(r.Budgets, floodBudgets(r.Floods)...)
	}
	if o.measures("rotator") || o.measures("status") || o.measures("admission") {
		if err := rotations(ctx, e, dir, o, say, &r); err != nil {
			return err
		}
	}
	say("done")
	if o.output == "json" {
		return r.json(stdout)
	}
	return r.table(stdout)
}

// rotations measures what needs many Secrets, from the fewest to the most.
func rotations(ctx context.Context, e *environment, dir string, o options, say func(string, ...any), r *report) error {
	b, err := newRotationBench(ctx, e, dir, say)
	if b != nil {
		defer b.counter.Close()
	}
	if err != nil {
		return err
	}
	if o.measures("admission") {
		if r.Admission, err = b.admissionPolicy(ctx); err != nil {
			return err
		}
		r.Budgets = append(r.Budgets, admissionBudget(r.Admission))
	}
	if o.measures("rotator") || o.measures("status") {
		if r.Rotations, r.Status, err = b.manySecrets(ctx, o); err != nil {
			return err
		}
		r.Budgets = append(r.Budgets, rotationBudgets(r.Rotations)...)
		r.Budgets = append(r.Budgets, r.Status.budgets()...)
	}
	return nil
}
