package edit

import (
	"cmp"
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

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/privatedir"
	"golang.org/x/term"
)

// editor is the user's, at work in a folder.
type editor struct {
	*cli.Factory
	folder privatedir.Dir
}

// editedFile is the name of the file that is edited. It is not made of the Secret's
// name: in a manifest that may be a path out of the folder, and in a cluster it may be
// as long as a file's and more.
const editedFile = "entries.yaml"

// grace is how long an editor has to end when it is told to.
const grace = 3 * time.Second

// maxEdited is more than any Secret takes as YAML.
const maxEdited = 16 << 20

// edit lets the user change a text.
func (e editor) edit(ctx context.Context, text string) (string, error) {
	path := filepath.Join(e.folder.Path, editedFile)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("writing the plaintext to edit: %w", err)
	}
	command := e.command(ctx, path)
	if in, ok := e.In.(*os.File); ok {
		// An editor that is killed leaves the terminal as it was using it.
		if state, err := term.GetState(int(in.Fd())); err == nil {
			defer term.Restore(int(in.Fd()), state)
		}
	}
	err := command.Run()
	switch {
	case ctx.Err() != nil:
		return "", errors.New("broken off: nothing was written")
	case err != nil:
		return "", cli.WithHint(fmt.Errorf("nothing was written: the editor %s failed: %w", command.Args[0], err),
			"KUBE_EDITOR or EDITOR names another")
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("nothing was written: reading what was edited: %w", err)
	}
	defer file.Close()
	edited, err := io.ReadAll(io.LimitReader(file, maxEdited+1))
	if err == nil && len(edited) > maxEdited {
		err = fmt.Errorf("it is longer than %d bytes", maxEdited)
	}
	if err != nil {
		return "", fmt.Errorf("nothing was written: reading what was edited: %w", err)
	}
	return string(edited), nil
}

// command is what kubectl edit would run.
func (e editor) command(ctx context.Context, path string) *exec.Cmd {
	line := cmp.Or(strings.TrimSpace(e.Getenv("KUBE_EDITOR")), strings.TrimSpace(e.Getenv("EDITOR")), "vi")
	args := append(strings.Fields(line), path)
	if strings.ContainsAny(line, `"'\$&|;<>()`+"`") {
		args = []string{"sh", "-c", line + ` "$@"`, "sh", path}
	}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = e.In, e.Out, e.ErrOut
	c.Env = append(os.Environ(), "TMPDIR="+e.folder.Path)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = grace
	return c
}
