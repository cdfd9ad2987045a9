package cliscript

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/test/admission"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// commands are those of the scripts.
func (s *Scripts) commands() map[string]Command {
	return map[string]Command{
		"exits":        exits,
		"as":           s.as,
		"vault-write":  s.vaultWrite,
		"vault-read":   s.vaultRead,
		"apply":        s.apply,
		"server-apply": s.serverApply,
		"get":          s.get,
		"delete":       s.delete,
		"token":        s.token,
		"provider":     s.provider,
		"replace":      replace,
		"terminal":     terminal,
		"admission":    s.admission,
		"ciphertext":   s.ciphertext,
		"helm-release": s.helmRelease,
		"own-vault":    s.ownVault,
		"freeze":       freeze,
		"thaw":         thaw,
		"silent":       silent,
	}
}

// Need ends the script if a command was not called as its usage says.
func Need(ts *testscript.TestScript, neg bool, ok bool, usage string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

// exits CODE PROGRAM ARG... runs a program, which must exit with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) > 1, "exits CODE PROGRAM ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		failed := (*exec.ExitError)(nil)
		if !errors.As(err, &failed) {
			ts.Fatalf("running %s: %v", args[1], err)
		}
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, not %d", got, want)
	}
	// A panic exits with 2, too, as a usage error does.
	if strings.Contains(ts.ReadFile("stderr"), "goroutine ") {
		ts.Fatalf("it panicked")
	}
}

// as POLICY... sets VAULT_TOKEN to a token with these policies, or "as root" to the root token.
func (s *Scripts) as(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) > 0, "as POLICY...")
	if args[0] == "root" {
		ts.Setenv("VAULT_TOKEN", s.Vault.RootToken)
		return
	}
	answer, err := s.Vault.Do(s.T.Context(), http.MethodPost, "auth/token/create", s.Vault.RootToken,
		map[string]any{"policies": args, "no_default_policy": true})
	ts.Check(err)
	ts.Setenv("VAULT_TOKEN", answer.Auth.ClientToken)
}

// vault-write PATH [NAME=VALUE]... writes with the root token.
func (s *Scripts) vaultWrite(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) > 0, "vault-write PATH [NAME=VALUE]...")
	data := map[string]any{}
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		data[name] = value
	}
	_, err := s.Vault.Write(s.T.Context(), args[0], data)
	ts.Check(err)
}

// vault-read PATH prints the data at a path as JSON.
func (s *Scripts) vaultRead(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 1, "vault-read PATH")
	data, err := s.Vault.Read(s.T.Context(), args[0])
	ts.Check(err)
	ts.Check(json.NewEncoder(ts.Stdout()).Encode(data))
}

// apply FILE [NAMESPACE] creates the Secret of a manifest.
func (s *Scripts) apply(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 1 || len(args) == 2, "apply FILE [NAMESPACE]")
	var secret corev1.Secret
	ts.Check(yaml.Unmarshal([]byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), &secret))
	namespace := ts.Getenv("NS")
	if len(args) == 2 {
		namespace = args[1]
	}
	_, err := s.Kube.CoreV1().Secrets(namespace).Create(s.T.Context(), &secret, metav1.CreateOptions{})
	ts.Check(err)
}

// ciphertext NAME ENTRY VARIABLE sets a variable to the ciphertext of an entry.
func (s *Scripts) ciphertext(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 3, "ciphertext NAME ENTRY VARIABLE")
	secret, err := s.Kube.CoreV1().Secrets(ts.Getenv("NS")).Get(s.T.Context(), args[0], metav1.GetOptions{})
	ts.Check(err)
	ts.Setenv(args[2], string(secret.Data[args[1]]))
}

// helm-release FILE NAME REVISION STATUS creates the Secret in which Helm stores a release with the manifest.
func (s *Scripts) helmRelease(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 4, "helm-release FILE NAME REVISION STATUS")
	text, err := json.Marshal(map[string]any{"name": args[1], "info": map[string]string{"status": args[3]},
		"manifest": os.Expand(ts.ReadFile(args[0]), ts.Getenv), "namespace": ts.Getenv("NS")})
	ts.Check(err)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err = z.Write(text)
	ts.Check(errors.Join(err, z.Close()))
	_, err = s.Kube.CoreV1().Secrets(ts.Getenv("NS")).Create(s.T.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "sh.helm.release.v1." + args[1] + ".v" + args[2],
			Labels: map[string]string{"owner": "helm", "name": args[1], "version": args[2], "status": args[3]}},
		Type: "helm.sh/release.v1",
		Data: map[string][]byte{"release": []byte(base64.StdEncoding.EncodeToString(b.Bytes()))},
	}, metav1.CreateOptions{})
	ts.Check(err)
}

// server-apply FILE MANAGER applies the Secret of a manifest on the server, as the field manager.
func (s *Scripts) serverApply(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 2, "server-apply FILE MANAGER")
	text := []byte(ts.ReadFile(args[0]))
	var secret corev1.Secret
	ts.Check(yaml.Unmarshal(text, &secret))
	force := true
	_, err := s.Kube.CoreV1().Secrets(ts.Getenv("NS")).Patch(s.T.Context(), secret.Name, types.ApplyYAMLPatchType, text,
		metav1.PatchOptions{FieldManager: args[1], Force: &force})
	ts.Check(err)
}

// admission DIR... applies policies of manifests/admission to the namespace of the script.
func (s *Scripts) admission(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) > 0, "admission DIR...")
	for _, dir := range args {
		p, err := admission.Load(dir)
		ts.Check(err)
		ts.Check(p.Only(ts.Getenv("NS")).Enforce(s.T.Context(), s.Kube, ts.Getenv("NS")))
	}
}

// get NAME prints a Secret as YAML; "! get NAME" requires that it does not exist.
func (s *Scripts) get(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, false, len(args) == 1, "[!] get NAME")
	secret, err := s.Kube.CoreV1().Secrets(ts.Getenv("NS")).Get(s.T.Context(), args[0], metav1.GetOptions{})
	if neg {
		if err == nil {
			ts.Fatalf("Secret %s is there", args[0])
		}
		return
	}
	ts.Check(err)
	secret.ManagedFields, secret.TypeMeta = nil, metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	text, err := yaml.Marshal(secret)
	ts.Check(err)
	_, err = ts.Stdout().Write(text)
	ts.Check(err)
}

// delete NAME deletes a Secret.
func (s *Scripts) delete(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 1, "delete NAME")
	ts.Check(s.Kube.CoreV1().Secrets(ts.Getenv("NS")).Delete(s.T.Context(), args[0], metav1.DeleteOptions{}))
}

// token FILE NAMESPACE ACCOUNT AUDIENCE [TTL [unbound]] writes a token to a file, bound to a
// pod or not.
func (s *Scripts) token(ts *testscript.TestScript, neg bool, args []string) {
	bound := len(args) < 6 || args[5] != "unbound"
	Need(ts, neg, len(args) == 4 || len(args) == 5 || len(args) == 6 && !bound,
		"token FILE NAMESPACE ACCOUNT AUDIENCE [TTL [unbound]]")
	ttl := time.Hour
	if len(args) >= 5 {
		var err error
		ttl, err = time.ParseDuration(args[4])
		ts.Check(err)
	}
	claims := fixture.Issuer().Claims(args[1], args[2], args[3], ttl)
	if !bound {
		delete(claims["kubernetes.io"].(map[string]any), "pod")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(fixture.Issuer().Sign(claims)+"\n"), 0o600))
}

// provider starts the provider until the end of the script, and sets $SOCKET.
func (s *Scripts) provider(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 0, "provider")
	program, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	socket, stop, err := ServeProvider(s.API.Kubeconfig, s.Vault.Address, program+"/secretmanager-provider",
		ts.MkAbs("provider.log"))
	ts.Check(err)
	ts.Defer(stop)
	ts.Setenv("SOCKET", socket)
}

// ServeProvider starts a provider, and waits for its socket. program is its path, and logFile gets its log.
func ServeProvider(kubeconfig, vault, program, logFile string) (socket string, stop func(), err error) {
	// The directory of the test may be too long for the path of a socket.
	dir, err := os.MkdirTemp("", "sm")
	if err != nil {
		return "", nil, err
	}
	socket = dir + "/s.sock"
	cmd := exec.Command(program, "--endpoint="+socket, "--vault-addr="+vault, "--vault-auth-mount=jwt",
		"--vault-allowed-auth-mounts=kubernetes", "--version-key-file="+dir+"/key", "--kubeconfig="+kubeconfig,
		"--mount-timeout=10s")
	log, err := os.Create(logFile)
	if err != nil {
		return "", nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return socket, stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			said, _ := os.ReadFile(logFile)
			return "", nil, fmt.Errorf("the provider does not serve:\n%s", said)
		}
	}
}

// replace FILE OLD NEW replaces a text everywhere in a file.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 3, "replace FILE OLD NEW")
	before := ts.ReadFile(args[0])
	if !strings.Contains(before, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(before, args[1], args[2])), 0o644))
}
