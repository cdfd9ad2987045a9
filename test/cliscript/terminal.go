package cliscript

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/secretmanager-io/secretmanager/test/async"
)

// terminalTimeout bounds the wait for a text, and for the end of a program. It is long, for busy machines.
const terminalTimeout = 2 * time.Minute

const terminalUsage = "[!] terminal [-cols N] [-see TEXT | -type TEXT | -interrupt]... FILE PROGRAM ARG..."

// A step is what the user does at a terminal: wait for a text, or type one.
type step struct{ see, input string }

// terminal runs a program in a terminal with 120 columns, or as many as -cols says. With ! the program must fail. The
// user first types $ANSWER and Enter if it is set, and then takes the steps in their order: -see waits until the
// terminal has shown the text since the step before, -type types a text (\n is Enter, \x04 ends the input), and
// -interrupt types Ctrl-C.
//
// What the terminal was sent goes to FILE, and the text that remains on the screen to FILE.screen, which lacks, for
// example, progress that was erased. It has the colors.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	cols, steps, args := terminalOptions(ts, args)
	Need(ts, false, len(args) > 1, terminalUsage)
	if answer := ts.Getenv("ANSWER"); answer != "" {
		steps = append([]step{{input: answer + "\n"}}, steps...)
	}
	cmd := terminalCommand(ts, args[1], args[2:])
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: uint16(cols)})
	ts.Check(err)
	defer master.Close()
	// The timer ends a program that does not end; this also ends all reads.
	timeout := time.AfterFunc(terminalTimeout, func() { cmd.Process.Kill() })
	defer timeout.Stop()
	var s screen
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&s, master)
		read <- err
	}()
	for _, next := range steps {
		if next.see != "" && !s.await(next.see, terminalTimeout) {
			cmd.Process.Kill()
			ts.Fatalf("the terminal does not show %q:\n%s", next.see, s.String())
		}
		_, err := io.WriteString(master, next.input)
		ts.Check(err)
	}
	if err := <-read; err != nil && !errors.Is(err, syscall.EIO) { // which is how a terminal ends on Linux
		ts.Fatalf("reading the terminal: %v", err)
	}
	if err := cmd.Wait(); (err != nil) != neg {
		ts.Fatalf("%s: %v\n%s", args[1], err, s.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(s.String()), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".screen"), []byte(remaining(s.String())), 0o644))
}

func terminalOptions(ts *testscript.TestScript, args []string) (cols int, steps []step, rest []string) {
	cols = 120
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if args[0] == "-interrupt" {
			steps, args = append(steps, step{input: "\x03"}), args[1:]
			continue
		}
		Need(ts, false, len(args) > 1, terminalUsage)
		var err error
		switch value := args[1]; args[0] {
		case "-cols":
			cols, err = strconv.Atoi(value)
		case "-see":
			steps = append(steps, step{see: value})
		case "-type":
			var text string
			text, err = strconv.Unquote(`"` + value + `"`)
			steps = append(steps, step{input: text})
		default:
			ts.Fatalf("usage: %s", terminalUsage)
		}
		ts.Check(err)
		args = args[2:]
	}
	return cols, steps, args
}

// terminalCommand returns a program of the script's PATH, with the variables of the script that it may need.
func terminalCommand(ts *testscript.TestScript, name string, args []string) *exec.Cmd {
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		path := dir + "/" + name
		if _, err := os.Stat(path); err != nil {
			continue
		}
		cmd := exec.Command(path, args...)
		cmd.Dir = ts.MkAbs(".")
		for _, name := range []string{"PATH", "HOME", "KUBECONFIG", "VAULT_ADDR", "VAULT_TOKEN", "VAULT_CLIENT_TIMEOUT",
			"VAULT_NAMESPACE", "EDITOR", "TERM", "NO_COLOR", "SECRETMANAGER_SETTLE"} {
			cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
		}
		return cmd
	}
	ts.Fatalf("unknown program %s", name)
	return nil
}

// A screen has what a terminal was sent.
type screen struct {
	async.Buffer
	seen int // bytes up to the end of the text that was awaited last
}

// await waits for a text after the one that was awaited last, and reports whether it came.
func (s *screen) await(text string, timeout time.Duration) bool {
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if at := strings.Index(s.String()[s.seen:], text); at >= 0 {
			s.seen += at + len(text)
			return true
		}
	}
	return false
}

// remaining returns what remains on the screen: in each line, the text after the last carriage return or erased line.
// Our programs write nothing else that moves the cursor.
func remaining(sent string) string {
	var b strings.Builder
	for line := range strings.SplitAfterSeq(sent, "\n") {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if i := strings.LastIndex(line, "\r"); i >= 0 {
			line = line[i+1:]
		}
		for _, erase := range []string{"\x1b[K", "\x1b[2K"} {
			line = strings.ReplaceAll(line, erase, "")
		}
		b.WriteString(line)
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}
