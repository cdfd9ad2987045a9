package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestDemo runs what make demo runs.
func TestDemo(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "run", "./test/demo")
	cmd.Dir, cmd.Env = "../..", os.Environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
