package step

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestRunReturnsOutput(t *testing.T) {
	got, err := Run(Command(t.Context(), "sh", "-c", "echo '  yes '; echo no >&2"))
	if err != nil {
		t.Fatal(err)
	}
	if got != "yes" {
		t.Errorf("got %q, want only the standard output, trimmed", got)
	}
}

func TestRunReportsFailure(t *testing.T) {
	_, err := Run(Command(t.Context(), "sh", "-c", "echo here; echo reason >&2; exit 3"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"sh -c", "exit status 3", "here", "reason"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	if _, err := Run(exec.Command("no-such-program")); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// The whole group of processes is interrupted, and in time.
func TestCommandEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := Run(Command(ctx, "sh", "-c", "sleep 60; true")); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > grace {
		t.Errorf("it took %s", took)
	}
}

func TestTail(t *testing.T) {
	if got := tail("a\nb\n"); got != "a\nb" {
		t.Errorf("got %q", got)
	}
	long := strings.Repeat("line\n", tailLines+5)
	if got := strings.Count(tail(long), "line"); got != tailLines {
		t.Errorf("%d lines, want %d", got, tailLines)
	}
}
