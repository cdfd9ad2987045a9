package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/hostile"
)

// TestHostileAuthor runs every verb on objects of an attacker, who may write classes, pods, Secrets,
// ConfigMaps and DaemonSets in a namespace, and manifests. No credential goes to an address, a Vault
// namespace or an auth mount of the attacker, and no text of the attacker controls a terminal or the
// log of a CI job.
func TestHostileAuthor(t *testing.T) {
	c := newDoctorEnv(t)
	c.install(t)
	h := &hostileAuthor{doctorEnv: c, dir: t.TempDir(), plain: newTrap(t, false), tls: newTrap(t, true)}
	t.Run("every verb", testEveryVerb)
	h.vault = newRecordingProxy(t, c.vault.Address)
	h.createObjects(t)
	h.serve(t)
	t.Run("credentials", h.testCredentials)
	t.Run("output", h.testOutput)
}

// verbCalls are the command lines of each verb that read what others wrote. A $NAME
// stands for a path of the test.
var verbCalls = map[string][]string{
	"vault-setup": {"--transit-key web --service-account web --apply", "--per-namespace --service-account web",
		"--transit-key web --service-account web -o terraform"},
	"encrypt": {
		"web --from-literal b=c", "bait --from-literal b=c",
		"web --from-literal b=c --dry-run=client --print-class --service-account web", "$NAME --from-literal b=c",
		"web --merge-into $FILE --from-literal b=c", "$NAME --merge-into $FILE --from-literal b=c",
		"bait --from-secret plain --transit-key web",
		"managed --include-managed --from-literal b=c --dry-run=server -o yaml",
		"managed --include-managed --from-literal b=c --dry-run=server -o json",
		"x --merge-into $LINK --transit-key web --from-literal a=b",
	},
	"edit": {"web", "bait", "-f $FILE", "-f $FILE web", "-f $ONE", "-f $FILE none", "-f $LINK"},
	"status": {"", "-A", "-A -o wide", "-A -o json", "-A -o yaml", "-A -o name", "-A --stale", "web bait", "bait -o json",
		"--simulate-retire", "--simulate-retire -o wide", "--simulate-retire -o json", "--simulate-retire -o yaml"},
	"rotate": {"--dry-run --transit-key web", "--rotate=never --transit-key web", "--dry-run -o json --transit-key w*",
		"-A --dry-run -o wide --transit-key web", "-A --rotate=never --transit-key web",
		"--dry-run -o yaml --transit-key web=other", "--dry-run"},
	"trim": {"web --dry-run", "web --dry-run -o json", "web --yes web"},
	"rewrap": {"$FILE", "--check $FILE", "--check -R $DIR", "-R $DIR --dry-run=client", "$ONE", "--check $ONE", "$LINK",
		"-R $LINK"},
	"lint":   {"-R $DIR", "-R $DIR -o github", "-R $DIR -o json", "$LINK"},
	"verify": {"", "-A", "-A -o wide", "-A -o yaml", "web bait", "-f $FILE", "-R -f $DIR", "-f $ONE -o json", "-f $LINK"},
	"mount": {
		"--class $GOOD --secret $SECRET --socket $SOCKET --service-account-token $TOKEN --out $OUT",
		"--class $CLASS --secret $ONE --socket $SOCKET --service-account-token $TOKEN --out $OUT",
		"--class $BADCLASS --secret $FILE --socket $SOCKET --service-account-token $TOKEN --out $OUT",
		"--class $CLASS --secret $SECRET --socket $SOCKET --service-account-token $TOKEN --out $OUT",
		"--class $ADDRESS --secret $SECRET --socket $SOCKET --service-account-token $TOKEN --out $OUT",
		"--class $NAMESPACE --secret $SECRET --socket $SOCKET --service-account-token $TOKEN --out $OUT",
		"--class $AUTHMOUNT --secret $SECRET --socket $SOCKET --service-account-token $TOKEN --out $OUT",
	},
	"doctor": {
		"", "web-0", "bait-0", "bait-1", "--class bait --service-account web", "--class bait -o json", "bait-0 --login=false",
		"--class address --service-account web", "--class namespace --service-account web",
		"--class authmount --service-account web",
	},
	"version":     {"", "--client -o json"},
	"completion":  {"bash", "zsh", "fish", "powershell"},
	"help":        {"", "doctor"},
	"__complete":  {"encrypt web --transit-key ", "encrypt web --from-literal ", "edit ", "-n "},
	"(no verb)":   {"", "--version", "nonsense"},
	"(bad usage)": {"doctor --nonsense", "status unknown"},
}

func testEveryVerb(t *testing.T) {
	root := root.NewCommand(cli.NewFactory(cli.Environment{ProgramName: "secretmanager"}))
	root.InitDefaultHelpCmd()
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if len(verbCalls[sub.Name()]) == 0 || sub.HasSubCommands() {
				t.Errorf("%s is not among verbCalls", sub.CommandPath())
			}
			check(sub)
		}
	}
	check(root)
}

// call runs a verb in this process.
func (h *hostileAuthor) call(t *testing.T, env map[string]string, verb, line string) (code int, stdout, stderr string) {
	t.Helper()
	var args []string
	if !strings.HasPrefix(verb, "(") {
		args = append(args, verb)
	}
	flags := []string{"--kubeconfig", env["KUBECONFIG"]}
	if !strings.Contains(line, "-A") && verb != "completion" && verb != "help" {
		flags = append(flags, "-n", "demo")
	}
	words := strings.Split(line, " ")
	if line == "" {
		words = nil
	}
	for i, word := range words {
		if name, ok := strings.CutPrefix(word, "$"); ok {
			words[i] = h.words[name]
		}
	}
	if verb == "__complete" { // the last word is the one to complete
		args = append(append(args, flags...), words...)
	} else {
		args = append(append(args, words...), flags...)
	}
	var out, errOut bytes.Buffer
	code = root.Run(t.Context(), cli.Environment{
		IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut},
		ProgramName: "secretmanager", Getenv: func(name string) string { return env[name] },
	}, args)
	return code, out.String(), errOut.String()
}

func (h *hostileAuthor) calls(yield func(verb, line string) bool) {
	for _, verb := range slices.Sorted(maps.Keys(verbCalls)) {
		for _, line := range verbCalls[verb] {
			if !yield(verb, line) {
				return
			}
		}
	}
}

// users returns the environments to run the verbs in: with a token in each supported location, with
// and without an address, with all rights in the cluster and with few.
func (h *hostileAuthor) users(t *testing.T) map[string]map[string]string {
	home, helped := t.TempDir(), t.TempDir()
	check(t, os.WriteFile(filepath.Join(home, ".vault-token"), []byte(h.doctorEnv.vault.RootToken), 0o600))
	helper := filepath.Join(helped, "helper")
	check(t, os.WriteFile(helper, []byte("#!/bin/sh\necho "+h.doctorEnv.vault.RootToken+"\n"), 0o700))
	check(t, os.WriteFile(filepath.Join(helped, ".vault"), []byte("token_helper = \""+helper+"\"\n"), 0o600))
	few, all := h.kubeconfigOf(t, "nobody")["KUBECONFIG"], h.server.Kubeconfig
	return map[string]map[string]string{
		"token file, no address":   {"HOME": home, "KUBECONFIG": few},
		"token helper, no address": {"HOME": helped, "KUBECONFIG": all},
		"token, no address":        {"HOME": t.TempDir(), "KUBECONFIG": few, "VAULT_TOKEN": h.doctorEnv.vault.RootToken},
		"administrator":            {"HOME": helped, "KUBECONFIG": all, "VAULT_ADDR": h.vault.address},
		"few rights":               {"HOME": home, "KUBECONFIG": few, "VAULT_ADDR": h.vault.address},
	}
}

func (h *hostileAuthor) testCredentials(t *testing.T) {
	used, mounted := 0, 0
	for name, env := range h.users(t) {
		env["KUBE_EDITOR"] = "true"
		for verb, line := range h.calls {
			_, stdout, stderr := h.call(t, env, verb, line)
			for _, trap := range []*trap{h.plain, h.tls} {
				if requests := trap.take(); len(requests) > 0 {
					t.Errorf("%s: %s %s: %s got %q\n%s%s", name, verb, line, trap.URL, requests, stdout, stderr)
				}
			}
			for _, path := range h.vault.take() {
				used++
				if strings.HasPrefix(path, providerSent) {
					mounted++
				}
				if strings.Contains(path, "mallory") {
					t.Errorf("%s: %s %s: credentials went to %s\n%s%s", name, verb, line, path, stdout, stderr)
				}
				if strings.HasPrefix(path, ":") {
					t.Errorf("%s: %s %s: a request does not name its verb%s", name, verb, line, path)
				}
			}
		}
	}
	if used < 50 {
		t.Errorf("only %d requests with credentials reached the Vault of the user", used)
	}
	if mounted == 0 {
		t.Error("no mount of the good class reached Vault")
	}
	// The traps record requests.
	for _, trap := range []*trap{h.plain, h.tls} {
		if _, err := trap.Client().Get(trap.URL); err != nil || len(trap.take()) < 2 {
			t.Errorf("%s records nothing: %v", trap.URL, err)
		}
	}
}

func (h *hostileAuthor) testOutput(t *testing.T) {
	env := h.users(t)["administrator"]
	shown := 0
	opened := filepath.Join(t.TempDir(), "opened")
	env["KUBE_EDITOR"] = fmt.Sprintf("cat >>%s", opened) // and changes nothing
	for verb, line := range h.calls {
		_, stdout, stderr := h.call(t, env, verb, line)
		out := stdout + stderr
		shown += strings.Count(out, "PWNED")
		for text := range strings.Lines(out) {
			if why := hostile.Effect(strings.TrimSuffix(text, "\n")); why != "" &&
				!(verb == "lint" && strings.Contains(line, "github") && strings.HasPrefix(text, "::")) {
				t.Errorf("%s %s: %s: %q", verb, line, why, text)
			}
			if verb == "lint" && strings.HasPrefix(text, "::error::") {
				t.Errorf("%s %s: a workflow command of the attacker: %q", verb, line, text)
			}
		}
	}
	// The verbs print text of the attacker, and do not fail before that.
	if code, stdout, stderr := h.call(t, env, "encrypt",
		"managed --include-managed --from-literal b=c --dry-run=server -o yaml"); code != cli.ExitDone ||
		!strings.Contains(stdout, "PWNED") {
		t.Errorf("a manifest: exit code %d: %s%s", code, stdout, stderr)
	}
	if shown < 50 {
		t.Errorf("only %d texts of the attacker were printed", shown)
	}
}
