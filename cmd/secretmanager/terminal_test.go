package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

// [!] terminal FILE PROGRAM ARG... runs a program in a terminal with 120 columns, types $ANSWER and
// Enter if it is set, and writes the output to a file. With ! the program must fail.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, len(args) > 1, "terminal FILE PROGRAM ARG...")
	var cmd *exec.Cmd
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		if path := dir + "/" + args[1]; cmd == nil {
			if _, err := os.Stat(path); err == nil {
				cmd = exec.Command(path, args[2:]...)
			}
		}
	}
	if cmd == nil {
		ts.Fatalf("unknown program %s", args[1])
	}
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "KUBECONFIG", "VAULT_ADDR", "VAULT_TOKEN", "TERM", "NO_COLOR",
		"SECRETMANAGER_SETTLE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 120})
	ts.Check(err)
	defer screen.Close()
	if answer := ts.Getenv("ANSWER"); answer != "" {
		_, err := io.WriteString(screen, answer+"\n")
		ts.Check(err)
	}
	shown, err := io.ReadAll(screen)
	if err != nil && !errors.Is(err, syscall.EIO) { // which is how a terminal ends on Linux
		ts.Fatalf("reading the terminal: %v", err)
	}
	if err := cmd.Wait(); (err != nil) != neg {
		ts.Fatalf("%s: %v\n%s", args[1], err, shown)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), shown, 0o644))
}
