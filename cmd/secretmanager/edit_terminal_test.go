package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/entrytext"
	"github.com/secretmanager-io/secretmanager/test/cliscript"
)

// session is the program in a pseudo-terminal with a script as the editor. At its n-th start the
// editor copies the text to given.n and runs step n.
type session struct {
	*user
	dir     string
	command *exec.Cmd
	master  *os.File

	mu     sync.Mutex
	screen bytes.Buffer
	ended  chan struct{} // closed when nothing more is shown
}

const steps = `n=$(cat n 2>/dev/null || echo 0); n=$((n+1)); echo $n > n.new; mv n.new n
cp "$1" given.$n; dirname "$1" > plaintext-dir
. ./step.$n
`

// start starts the editing of Secret matrix.
func (u *user) start(edits ...string) *session {
	t := u.t
	t.Helper()
	tm := &session{user: u, dir: t.TempDir(), ended: make(chan struct{})}
	for i, step := range append([]string{steps}, edits...) {
		name := fmt.Sprintf("step.%d", i)
		if err := os.WriteFile(filepath.Join(tm.dir, name), []byte(step), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	tm.command = exec.CommandContext(t.Context(), cliscript.Program(t), "edit", "matrix", "-n", u.Namespace)
	tm.command.Dir = tm.dir
	tm.command.Env = append(os.Environ(), "KUBECONFIG="+u.API.Kubeconfig, "VAULT_ADDR="+u.Vault.Address,
		"VAULT_TOKEN="+u.Vault.RootToken, "KUBE_EDITOR=sh step.0", "XDG_RUNTIME_DIR=")
	if tm.master, err = pty.Start(tm.command); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tm.command.Process.Kill()
		tm.master.Close()
		<-tm.ended
	})
	go func() {
		defer close(tm.ended)
		io.Copy(writer(func(p []byte) (int, error) {
			tm.mu.Lock()
			defer tm.mu.Unlock()
			return tm.screen.Write(p)
		}), tm.master)
	}()
	return tm
}

type writer func(p []byte) (int, error)

func (f writer) Write(p []byte) (int, error) { return f(p) }

// until waits for a condition.
func (tm *session) until(what string, is func() bool) {
	tm.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tm.t.Fatalf("%s did not come:\n%s", what, tm.shown())
		}
	}
}

func (tm *session) shown() string {
	tm.mu.Lock()
	defer tm.mu.Unlock()
	return strings.ReplaceAll(tm.screen.String(), "\r\n", "\n")
}

// shows waits for a text on the screen.
func (tm *session) shows(text string) {
	tm.t.Helper()
	tm.until(fmt.Sprintf("%q", text), func() bool { return strings.Contains(tm.shown(), text) })
}

func (tm *session) types(text string) {
	tm.t.Helper()
	if _, err := io.WriteString(tm.master, text); err != nil {
		tm.t.Fatal(err)
	}
}

func (tm *session) given(n int) string {
	tm.t.Helper()
	text, err := os.ReadFile(filepath.Join(tm.dir, fmt.Sprint("given.", n)))
	if err != nil {
		tm.t.Fatal(err)
	}
	return string(text)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// ends waits for the program to exit with a code, and checks that the plaintext has been wiped.
func (tm *session) ends(code int) {
	t := tm.t
	t.Helper()
	tm.command.Wait()
	if got := tm.command.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d:\n%s", got, code, tm.shown())
	}
	dir, err := os.ReadFile(filepath.Join(tm.dir, "plaintext-dir"))
	if err != nil {
		t.Fatal(err)
	}
	if path := strings.TrimSpace(string(dir)); path == "" || exists(path) {
		t.Errorf("directory %q exists", path)
	}
}

func (tm *session) opens(n int) {
	tm.t.Helper()
	if exists(filepath.Join(tm.dir, fmt.Sprint("given.", n+1))) ||
		!exists(filepath.Join(tm.dir, fmt.Sprint("given.", n))) {
		tm.t.Errorf("the editor was not opened %d times", n)
	}
}

// value returns an entry of the Secret in the cluster.
func (u *user) value(entry string) string {
	u.t.Helper()
	seen := filepath.Join(u.t.TempDir(), "seen")
	u.env["KUBE_EDITOR"] = "sh -c 'cp \"$1\" " + seen + "' sh"
	u.must("", "edit", "matrix")
	text, err := os.ReadFile(seen)
	if err != nil {
		u.t.Fatal(err)
	}
	entries, problems := entrytext.Parse(string(text))
	if problems != nil {
		u.t.Fatal(problems)
	}
	return string(entries[entry])
}

func newEditUser(t *testing.T) *user {
	t.Helper()
	u := newUser(t)
	u.must("", "encrypt", "matrix", "--transit-key", u.Namespace, "--from-literal", "a=one", "--from-literal", "b=two")
	return u
}

// The editor controls the terminal.
func TestEditInTerminal(t *testing.T) {
	u := newEditUser(t)
	tm := u.start(`printf 'New value? '; read -r v; sed -i "s/one/$v/" "$1"`)
	tm.shows("New value? ")
	tm.types("typed\n")
	tm.ends(cli.ExitDone)
	tm.shows("secret/matrix edited")
	if got := u.value("a"); got != "typed" {
		t.Errorf("it is %q", got)
	}
}

// Invalid text is opened again, unchanged, with the reason on top.
func TestEditOpensAgain(t *testing.T) {
	u := newEditUser(t)
	tm := u.start(
		`printf 'a: "lost\n# mine\nb: 2\n' > "$1"`,
		`printf 'a: 1\na: 2\nb:\n' > "$1"`,
		`printf 'a: mended\nb: two\n' > "$1"`,
	)
	tm.ends(cli.ExitDone)
	tm.opens(3)
	second := tm.given(2)
	if !strings.Contains(second, "# Nothing has been written yet, as the text is invalid:\n#   line ") ||
		!strings.HasSuffix(second, "\na: \"lost\n# mine\nb: 2\n") {
		t.Errorf("the second time it was\n%s", second)
	}
	third := tm.given(3)
	lines := strings.Split(third, "\n")
	for _, want := range []struct{ text, line string }{{`entry "a" is duplicated`, "a: 2"},
		{`entry "b": it has no value`, "b:"}} {
		i := strings.Index(third, want.text)
		var n int
		if i < 0 {
			t.Errorf("%q is not in\n%s", want.text, third)
			continue
		}
		start := strings.LastIndex(third[:i], "line ")
		if _, err := fmt.Sscanf(third[start:], "line %d:", &n); err != nil || n > len(lines) || lines[n-1] != want.line {
			t.Errorf("%q is not at line %d of\n%s", want.line, n, third)
		}
	}
	if strings.Count(third, "# The entries of Secret") != 1 {
		t.Errorf("the comments pile up:\n%s", third)
	}
	if got := u.value("a"); got != "mended" {
		t.Errorf("it is %q", got)
	}

	// Saving the text unchanged cancels.
	tm = u.start(`echo 'a: "lost' > "$1"`, ``)
	tm.ends(cli.ExitFailed)
	tm.opens(2)
	tm.shows("nothing was written: the saved text is invalid")
	if strings.Contains(tm.shown(), "lost") {
		t.Errorf("a value is shown:\n%s", tm.shown())
	}
	if got := u.value("a"); got != "mended" {
		t.Errorf("it is %q", got)
	}

	// The same applies to text that Vault or the cluster rejects.
	tm = u.start(`{ echo 'a: !!binary |'; head -c 800000 /dev/zero | base64 | sed 's/^/  /'; } > "$1"`,
		`printf 'a: small\nb: two\n' > "$1"`)
	tm.ends(cli.ExitDone)
	if second := tm.given(2); !strings.Contains(second, "# Nothing has been written yet:\n") ||
		!strings.Contains(second, "a Kubernetes Secret holds 1048576") {
		t.Errorf("the second time it was\n%.2000s", second)
	}
	if got := u.value("a"); got != "small" {
		t.Errorf("it is %q", got)
	}
}

// If others change the same entry meanwhile, the editor opens again with their other changes, and their
// value is not overwritten without confirmation.
func TestEditConflict(t *testing.T) {
	theirs := func(u *user) {
		u.must("", "encrypt", "matrix", "--from-literal", "a=line 1\nline 2", "--from-literal", "c=theirs too")
	}
	const wait = `sed -i 's/one/ours/; s/^b:.*/b: ours/' "$1"; printf 'Edited. '; read -r x`
	for _, test := range []struct {
		name, second, answer string
		code                 int
		a, b                 string
	}{
		{"merged", `sed -i 's/^a:.*/a: both/' "$1"`, "", cli.ExitDone, "both", "ours"},
		{"over theirs", ``, "y\n", cli.ExitDone, "ours", "ours"},
		{"given up", ``, "n\n", cli.ExitFailed, "line 1\nline 2", "two"},
		{"given up with Enter", ``, "\n", cli.ExitFailed, "line 1\nline 2", "two"},
		{"emptied", `: > "$1"`, "", cli.ExitFailed, "line 1\nline 2", "two"},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := newEditUser(t)
			tm := u.start(wait, test.second)
			tm.shows("Edited. ")
			theirs(u)
			tm.types("\n")
			if test.answer != "" {
				tm.shows("Write it anyway? [y/N] ")
				tm.types(test.answer)
			}
			tm.ends(test.code)
			tm.opens(2)
			second := tm.given(2)
			for _, want := range []string{
				"#   nothing was written: others have changed the same entries: a (by secretmanager at 2",
				"; they have also changed: c (by secretmanager at 2",
				"# Your value is below, and will replace theirs, which is:\n#   a: |-\n#     line 1\n#     line 2\n",
				"\na: ours\nb: ours\nc: \"theirs too\"\n",
			} {
				if !strings.Contains(second, want) {
					t.Errorf("%q is not in\n%s", want, second)
				}
			}
			if a, b, c := u.value("a"), u.value("b"), u.value("c"); a != test.a || b != test.b || c != "theirs too" {
				t.Errorf("it is %q, %q, %q", a, b, c)
			}
		})
	}
}

// However the program ends, it wipes the plaintext and the files that the editor left, and writes nothing.
func TestEditBrokenOff(t *testing.T) {
	u := newEditUser(t)
	was := u.secret("matrix")
	for _, test := range []struct {
		name  string
		code  int
		edits []string
		end   func(tm *session)
	}{
		{"Ctrl-C", 130, nil, func(tm *session) { tm.types("\x03") }},
		{"SIGTERM", 143, nil, func(tm *session) { tm.command.Process.Signal(syscall.SIGTERM) }},
		{"SIGQUIT", cli.ExitFailed, nil, func(tm *session) { tm.command.Process.Signal(syscall.SIGQUIT) }},
		{"SIGHUP, as when the terminal is closed", cli.ExitFailed, nil,
			func(tm *session) { tm.command.Process.Signal(syscall.SIGHUP) }},
		{"SIGTERM at the question", 143,
			[]string{`sed -i 's/one/lost/' "$1"; printf 'Edited. '; read -r x`, ``},
			func(tm *session) {
				tm.shows("Edited. ")
				tm.must("", "encrypt", "matrix", "--from-literal", "a=theirs")
				was = tm.secret("matrix")
				tm.types("\n")
				tm.shows("Write it anyway?")
				tm.command.Process.Signal(syscall.SIGTERM)
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			u.t = t
			if test.edits == nil {
				test.edits = []string{
					`sed -i 's/two/lost/' "$1"; cp "$1" "$1~"; mkdir "$TMPDIR/swap"; cp "$1" "$TMPDIR/swap"; ` +
						`echo waits > state; exec sleep 1000`}
			}
			tm := u.start(test.edits...)
			if len(test.edits) == 1 {
				tm.until("the editor", func() bool { return exists(filepath.Join(tm.dir, "state")) })
			}
			test.end(tm)
			tm.ends(test.code)
			if now := u.secret("matrix"); now.ResourceVersion != was.ResourceVersion {
				t.Error("it was written")
			}
		})
	}
}

// The note on the shell history is printed only to a terminal.
func TestLiteralNote(t *testing.T) {
	u := newUser(t)
	c := exec.CommandContext(t.Context(), cliscript.Program(t), "encrypt", "matrix", "-n", u.Namespace,
		"--transit-key", u.Namespace,
		"--from-literal", "a=hunter2")
	c.Env = append(os.Environ(), "KUBECONFIG="+u.API.Kubeconfig, "VAULT_ADDR="+u.Vault.Address,
		"VAULT_TOKEN="+u.Vault.RootToken)
	master, err := pty.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	screen, _ := io.ReadAll(master) // ends with EIO when the program does
	if err := c.Wait(); err != nil ||
		!strings.Contains(string(screen), "note: values of --from-literal may stay in the history of your shell") ||
		strings.Contains(string(screen), "hunter2") {
		t.Errorf("%v:\n%s", err, screen)
	}
	if _, _, stderr := u.run("", "encrypt", "matrix", "--from-literal", "a=hunter2"); strings.Contains(stderr, "history") {
		t.Errorf("elsewhere too:\n%s", stderr)
	}
}
