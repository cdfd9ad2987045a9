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
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/privatedir"
)

// editor runs the user's editor in a directory. The editor of k8s.io/kubectl is not used: it writes the plaintext to
// the temporary directory of the system, cannot be interrupted, and links most of kubectl.
type editor struct {
	*cli.Factory
	dir privatedir.Dir
}

// editedFile is the name of the file that is edited. The name of the Secret is not used: in a manifest
// it may be a path, and in a cluster it may be longer than a file name.
const editedFile = "entries.yaml"

// gracePeriod is the time between SIGTERM and SIGKILL of an editor.
const gracePeriod = 500 * time.Millisecond

// maxEdited is more than any Secret takes as YAML.
const maxEdited = 16 << 20

// edit returns the text as the user has edited it.
func (e editor) edit(ctx context.Context, text string) (string, error) {
	path := filepath.Join(e.dir.Path, editedFile)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("writing the plaintext to edit: %w", err)
	}
	command := e.command(ctx, path)
	if in, ok := e.Own.In.(*os.File); ok {
		// An editor that is killed does not restore the terminal.
		if state, err := term.GetState(int(in.Fd())); err == nil {
			defer term.Restore(int(in.Fd()), state)
		}
	}
	err := command.Run()
	switch {
	case ctx.Err() != nil:
		return "", errors.New("interrupted: nothing was written")
	case err != nil:
		return "", cli.WithHint(fmt.Errorf("nothing was written: the editor %s failed: %w", command.Args[0], err),
			"set KUBE_EDITOR or EDITOR to another editor")
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("nothing was written: reading the edited text: %w", err)
	}
	defer file.Close()
	edited, err := io.ReadAll(io.LimitReader(file, maxEdited+1))
	if err == nil && len(edited) > maxEdited {
		err = fmt.Errorf("it is longer than %d bytes", maxEdited)
	}
	if err != nil {
		return "", fmt.Errorf("nothing was written: reading the edited text: %w", err)
	}
	return string(edited), nil
}

// command returns the command that kubectl edit would run.
func (e editor) command(ctx context.Context, path string) *exec.Cmd {
	line := editorCommand(e.Getenv)
	args := append(strings.Fields(line), path)
	if strings.ContainsAny(line, `"'\$&|;<>()`+"`") {
		args = []string{"sh", "-c", line + ` "$@"`, "sh", path}
	}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = e.Own.In, e.Own.Out, e.Own.ErrOut
	c.Env = append(os.Environ(), "TMPDIR="+e.dir.Path)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = gracePeriod
	return c
}

// editorCommand returns the command line of the user's editor.
func editorCommand(getenv func(string) string) string {
	return cmp.Or(strings.TrimSpace(getenv("KUBE_EDITOR")), strings.TrimSpace(getenv("EDITOR")), "vi")
}

// waitFlags are the flags with which editors wait until their window is closed. The first one is suggested.
var waitFlags = map[string][]string{
	"atom": {"--wait", "-w"}, "bbedit": {"--wait", "-w"}, "code": {"--wait", "-w"}, "code-insiders": {"--wait", "-w"},
	"codium": {"--wait", "-w"}, "cursor": {"--wait", "-w"}, "gedit": {"--wait", "-w"}, "goland": {"--wait"},
	"gvim": {"-f", "--nofork"}, "idea": {"--wait"}, "kate": {"--block", "-b"}, "mate": {"--wait", "-w"},
	"mvim": {"-f", "--nofork"}, "open": {"-W"}, "pycharm": {"--wait"}, "subl": {"--wait", "-w"},
	"windsurf": {"--wait", "-w"}, "zed": {"--wait", "-w"}, "zeditor": {"--wait", "-w"},
}

// waiting returns the command line with the flag that makes the editor wait. It is empty for other editors, and if the
// command line has the flag.
func waiting(command string) string {
	fields := strings.Fields(command)
	if len(fields) == 0 {
		return ""
	}
	flags, known := waitFlags[filepath.Base(fields[0])]
	if !known || slices.ContainsFunc(flags, func(flag string) bool { return slices.Contains(fields, flag) }) {
		return ""
	}
	return strings.Join(slices.Insert(fields, 1, flags[0]), " ")
}
