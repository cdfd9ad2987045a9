package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// run runs the built rotator as its CronJob does, without a limit on requests per second,
// and returns its report, its duration and its peak of resident memory.
func (b *rotationBench) run(ctx context.Context, args ...string) (report rotator.Report, took time.Duration, rss int64,
	err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, rotatorName), append([]string{"--transit-key=" + rotationKey,
		"--vault-addr=" + b.counter.URL, "--kubeconfig=" + b.api.Kubeconfig, "--kube-qps=100000", "--settle=0s",
		"--log-format=json"}, args...)...)
	cmd.Env = []string{"VAULT_TOKEN=" + b.vault.RootToken}
	stdout, took, rss, err := runMeasured(cmd)
	if err != nil {
		return report, took, 0, err
	}
	if rss == 0 {
		return report, took, 0, errors.New("reading the memory of the rotator, which needs Linux")
	}
	return report, took, rss, json.Unmarshal(stdout, &report)
}

// runMeasured runs a program and returns its standard output, its duration and its peak of resident memory. The
// error has the end of its standard error.
func runMeasured(cmd *exec.Cmd) (stdout []byte, took time.Duration, rss int64, err error) {
	cmd.SysProcAttr = childAttributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, 0, err
	}
	peak := make(chan int64)
	ended := make(chan struct{})
	go func() { peak <- peakMemory(cmd.Process.Pid, ended) }()
	err = cmd.Wait()
	took = time.Since(began)
	close(ended)
	rss = <-peak
	if err != nil {
		text := stderr.Bytes()
		err = fmt.Errorf("%w\nend of its standard error:\n%s", err, text[max(0, len(text)-4000):])
	}
	return out.Bytes(), took, rss, err
}

// peakMemory returns the peak of a process's resident memory, read until it has ended. The
// kernel's ru_maxrss is not suitable, because a child begins with the peak of its parent.
func peakMemory(pid int, ended <-chan struct{}) (peak int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
			if n, err := parseKB(string(text), "VmHWM:"); err == nil {
				peak = n
			}
		}
		select {
		case <-ended:
			return peak
		case <-tick.C:
		}
	}
}
