package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// demo is the state of one run.
type demo struct {
	out      io.Writer
	dir      string
	vault    *testenv.Vault
	issuer   *testenv.JWTIssuer
	provider *exec.Cmd
	log      bytes.Buffer // of the provider
	step     int
}

func newDemo(out io.Writer) *demo { return &demo{out: out} }

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// announce prints the title of a step and an explanation.
func (d *demo) announce(title, explanation string) {
	d.step++
	d.printf("\n%d. %s", d.step, title)
	for line := range strings.Lines(wrap(explanation, "")) {
		d.printf("   %s", strings.TrimSuffix(line, "\n"))
	}
	d.printf("")
}

// show prints an indented text.
func (d *demo) show(text string) {
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if len(line) > 110 {
			line = line[:107] + "…"
		}
		d.printf("     %s", line)
	}
}

// secretmanager runs the command line with a Vault token, shows the command and its
// standard error, and returns its standard output.
func (d *demo) secretmanager(ctx context.Context, token string, args ...string) (string, error) {
	d.printf("   $ secretmanager %s", strings.Join(quoted(args), " "))
	cmd := exec.CommandContext(ctx, d.path("bin/secretmanager"), args...)
	cmd.Dir = d.dir
	// Without a cluster, and without the caller's settings of Vault and Kubernetes.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "VAULT_ADDR=" + d.vault.Address,
		"VAULT_TOKEN=" + token, "SECRETMANAGER_SETTLE=0s"} // no backup of this Vault is ever restored
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if stderr.Len() > 0 {
		d.show(wrap(stderr.String(), "  "))
	}
	if err != nil {
		return "", fmt.Errorf("secretmanager %s: %w", args[0], err)
	}
	return stdout.String(), nil
}

// wrap breaks long lines at spaces. Continuation lines begin with the indent.
func wrap(text, indent string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		width := 0
		for i, word := range strings.Fields(line) {
			switch {
			case i == 0:
			case width+len(word) > 100:
				b.WriteString("\n" + indent)
				width = 0
			default:
				b.WriteString(" ")
			}
			b.WriteString(word)
			width += len(word) + 1
		}
		b.WriteString("\n")
	}
	return b.String()
}

func quoted(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsAny(a, " {}\"") {
			a = "'" + a + "'"
		}
		out[i] = a
	}
	return out
}

// build builds the programs that the demo runs.
func (d *demo) build(ctx context.Context) error {
	d.printf("Preparing: the first run builds Vault from its modules, which takes some minutes.")
	if _, err := programs.Path(ctx, "vault"); err != nil {
		return err
	}
	root, err := programs.Root()
	if err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "secretmanager-demo-"); err != nil {
		return err
	}
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", d.path("bin")+"/", "./cmd/secretmanager",
		"./cmd/secretmanager-provider")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("building the programs: %w\n%s", err, output.String())
			}
			return nil
		case <-tick.C:
			d.printf("building secretmanager and its provider … %s", time.Since(began).Round(time.Second))
		}
	}
}

// close stops all processes and removes all files.
func (d *demo) close() error {
	var errs []error
	if d.provider != nil {
		errs = append(errs, d.provider.Process.Signal(syscall.SIGTERM))
		// It finishes its calls and ends. Its exit code does not matter.
		_ = d.provider.Wait()
	}
	if d.vault != nil {
		d.vault.Stop()
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}
