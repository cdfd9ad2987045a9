package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/async"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// testCommands runs commands after the leader was killed, in make test-long each of them right after. Each succeeds, or
// reports why it failed and leaves the Secret as it was; the same command succeeds later.
func (e *env) testCommands(t *testing.T) {
	key := testenv.UniqueName("cli")
	e.createKey(t, key)
	transit := *e.Transit
	transit.T, transit.Key = t, key
	f := transit.With(testenv.SharedAPIServer(t))
	u := &user{t: t, Fixture: f, env: map[string]string{
		"VAULT_ADDR": e.cluster.Address(), "VAULT_TOKEN": e.Vault.RootToken, "SECRETMANAGER_SETTLE": "0s",
	}}
	library := secretmanager.New(e.root, f.Kube)
	n := 0
	write := func(args ...string) func() (int, string) {
		return func() (int, string) {
			file := filepath.Join(t.TempDir(), "password")
			text := fmt.Sprint("text ", n)
			f.Must(os.WriteFile(file, []byte(text), 0o600))
			u.env["KUBE_EDITOR"] = fmt.Sprintf(`f() { printf 'password: "%s"\n' >"$1"; }; f`, text)
			previous := fmt.Sprint("text ", n-1)
			line := slices.Clone(args)
			for i, a := range line {
				line[i] = strings.ReplaceAll(a, "FILE", file)
			}
			code, _, stderr := u.run(line...)
			want := text
			if code != cli.ExitDone {
				want = previous
			}
			data, err := library.Read(t.Context(), f.Namespace, "s")
			if got := string(data["password"]); n > 0 && (err != nil || got != want) {
				t.Errorf("after %s with code %d, the entry is %q, want %q: %v", args[0], code, got, want, err)
			}
			if code == cli.ExitDone {
				n++
			}
			return code, stderr
		}
	}
	encrypt := write("encrypt", "s", "--transit-key", key, "--from-file", "password=FILE")
	edit := write("edit", "s")
	status := func() (int, string) {
		code, stdout, stderr := u.run("status", "-o", "json")
		switch {
		case strings.Contains(stdout, `"state":"current"`) && stderr == "":
		case strings.Contains(stdout, `"state":"unknown"`) && strings.Contains(stderr, "reading transit/keys/"):
			code = cli.ExitFailed // status itself says with code 0 that it does not know
		default:
			t.Errorf("status: code %d: %s\n%s", code, stdout, stderr)
		}
		return code, stderr
	}
	if code, stderr := encrypt(); code != cli.ExitDone {
		t.Fatal(stderr)
	}
	commands := []command{{"encrypt", encrypt}, {"edit", edit}, {"status", status}}
	for round := range repetitions(1, 9) {
		leader := e.cluster.Leader(t)
		killed := time.Now()
		leader.Kill()
		for i := range commands {
			commands[(round+i)%len(commands)].repeat(t, killed)
		}
		e.restart(t, failover{leader: leader})
	}
}

// command runs a verb, and returns its exit code and standard error.
type command struct {
	name string
	run  func() (int, string)
}

// repeat runs the command until it succeeds.
func (c command) repeat(t *testing.T, killed time.Time) {
	failed := 0
	async.Wait(t, c.name+" to succeed", func() bool {
		code, stderr := c.run()
		if code == cli.ExitDone {
			return true
		}
		failed++
		t.Logf("%s, %s after the failure, failed: %s", c.name, time.Since(killed).Round(time.Millisecond), stderr)
		if code != cli.ExitFailed || stderr == "" {
			t.Errorf("%s: exit code %d: %s", c.name, code, stderr)
		}
		return false
	})
	t.Logf("%s succeeded %s after the failure, failed before: %d", c.name, time.Since(killed).Round(time.Millisecond),
		failed)
}

// user runs commands in this process.
type user struct {
	*fixture.Fixture
	t   *testing.T
	env map[string]string
}

// run runs a verb in the namespace of the user.
func (u *user) run(args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	args = append(args, "--kubeconfig", u.API.Kubeconfig, "-n", u.Namespace)
	code = root.Run(u.t.Context(), cli.Environment{
		IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut},
		ProgramName: "secretmanager", Getenv: func(name string) string { return u.env[name] },
	}, args)
	return code, out.String(), errOut.String()
}
