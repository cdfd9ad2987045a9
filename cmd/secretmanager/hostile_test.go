package main

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/hostile"
	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestHostileAuthor drives every verb over what somebody wrote who may write classes,
// pods, Secrets, ConfigMaps and DaemonSets in a namespace, and manifests: nothing that
// authenticates anybody goes to an address, a Vault namespace or an auth mount of
// theirs, and nothing of theirs acts on a terminal or in the log of a CI job.
func TestHostileAuthor(t *testing.T) {
	c := newClinic(t)
	c.install(t)
	h := &hostileAuthor{clinic: c, dir: t.TempDir(), plain: newTrap(t, false), tls: newTrap(t, true)}
	t.Run("every verb", testEveryVerb)
	h.vault = newWitness(t, c.vault.Address)
	h.bait(t)
	h.serve(t)
	t.Run("credentials", h.testCredentials)
	t.Run("output", h.testOutput)
}

// verbCalls are the command lines of each verb that look at what others wrote. A $NAME
// stands for a path of the test.
var verbCalls = map[string][]string{
	"vault-setup": {"--transit-key web --service-account web --apply", "--per-namespace --service-account web",
		"--transit-key web --service-account web -o terraform"},
	"encrypt": {
		"web --from-literal b=c", "bait --from-literal b=c",
		"web --from-literal b=c --dry-run=client --print-class --service-account web", "$NAME --from-literal b=c",
		"web --merge-into $FILE --from-literal b=c", "$NAME --merge-into $FILE --from-literal b=c",
		"bait --from-secret plain --transit-key web",
		"managed --from-literal b=c --dry-run=server -o yaml", "managed --from-literal b=c --dry-run=server -o json",
		"x --merge-into $LINK --transit-key web --from-literal a=b",
	},
	"edit": {"web", "bait", "-f $FILE", "-f $FILE web", "-f $ONE", "-f $FILE none", "-f $LINK"},
	"status": {"", "-A", "-A -o wide", "-A -o json", "-A -o yaml", "-A -o name", "-A --stale", "--if-retired",
		"--if-retired -o json"},
	"rotate": {"--dry-run", "--rotate=never", "--dry-run -o json", "--dry-run -o yaml"},
	"rewrap": {"$FILE", "--check $FILE", "--check -R $DIR", "-R $DIR --dry-run=client", "$ONE", "--check $ONE", "$LINK",
		"-R $LINK"},
	"lint":   {"-R $DIR", "-R $DIR -o github", "-R $DIR -o json", "$LINK"},
	"verify": {"", "-A", "web bait", "-f $FILE", "-R -f $DIR", "-f $ONE -o json", "-f $LINK"},
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
	"completion":  {"bash", "zsh", "fish", "powershell"},
	"help":        {"", "doctor"},
	"__complete":  {"encrypt web --transit-key ", "encrypt web --from-literal ", "edit ", "-n "},
	"(no verb)":   {"", "--version", "nonsense"},
	"(bad usage)": {"doctor --nonsense", "status stray"},
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

type hostileAuthor struct {
	*clinic
	dir        string
	plain, tls *trap
	vault      *witness
	words      map[string]string // for the $NAMEs of command lines
}

// A trap is a server that nobody should connect to.
type trap struct {
	*httptest.Server
	mu  sync.Mutex
	saw []string
}

func newTrap(t *testing.T, secure bool) *trap {
	tr := &trap{}
	tr.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		tr.note(fmt.Sprintf("%s %s %v %s", r.Method, r.URL, r.Header, body))
		io.WriteString(w, `{"initialized":true,"version":"1.21.2","server_time_utc":1}`)
	}))
	tr.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			tr.note("a connection from " + c.RemoteAddr().String())
		}
	}
	if secure {
		tr.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		tr.StartTLS()
	} else {
		tr.Start()
	}
	t.Cleanup(tr.Close)
	return tr
}

func (t *trap) note(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saw = append(t.saw, what)
}

func (t *trap) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	saw := t.saw
	t.saw = nil
	return saw
}

// providerSent is the sender of the provider's requests, as a witness notes it.
const providerSent = "provider"

// A witness stands in front of Vault and notes who sends credentials where in it.
type witness struct {
	trap
	address string
}

func newWitness(t *testing.T, address string) *witness {
	w := &witness{}
	vault, err := relay.New(address, nil)
	check(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, "unread", http.StatusBadGateway)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if r.Header.Get("X-Vault-Token") != "" || bytes.Contains(body, []byte("eyJ")) {
			sender := r.Header.Get("X-SecretManager-Verb")
			if r.Header.Get("X-SecretManager-Request-Id") != "" {
				sender = providerSent
			}
			w.note(sender + ": " + r.Header.Get("X-Vault-Namespace") + " " + r.URL.Path)
		}
		r.Header.Del("X-Vault-Namespace") // which this Vault has none of
		vault.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.address = server.URL
	return w
}

func yamlText(s string) string { return fmt.Sprintf("%q", s) }

// bait writes what an author may write.
func (h *hostileAuthor) bait(t *testing.T) {
	t.Helper()
	secret := func(name, namespace, more string) string {
		return "apiVersion: v1\nkind: Secret\ntype: secretmanager.io/ciphertext\nmetadata:\n  name: " + yamlText(name) +
			"\n  namespace: " + yamlText(namespace) +
			"\n  labels: {secretmanager.io/transit-key: web}\n" + more
	}
	web, err := h.kube.CoreV1().Secrets("demo").Get(t.Context(), "web", metav1.GetOptions{})
	check(t, err)
	value := string(web.Data["token"])
	address := h.plain.Listener.Addr().String()
	annotations := map[string]string{}
	for _, name := range []string{"vault-address", "vault-addr", "address", "vaultAddress"} {
		annotations[ciphertext.Prefix+name] = h.plain.URL
	}
	lines := ""
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		lines += "    " + name + ": " + annotations[name] + "\n"
	}
	evilData := "  annotations:\n" + lines + "    kubectl.kubernetes.io/last-applied-configuration: " +
		yamlText(hostile.Text) + "\ndata:\n  " + yamlText(hostile.Text) + ": " +
		base64.StdEncoding.EncodeToString([]byte(value)) + "\n"
	class := func(name string, parameters map[string]string) string {
		b := "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata: {name: " +
			yamlText(name) + ", namespace: demo}\nspec:\n  provider: secretmanager\n  parameters:\n"
		for _, key := range slices.Sorted(maps.Keys(parameters)) {
			b += "    " + yamlText(key) + ": " + yamlText(parameters[key]) + "\n"
		}
		return b
	}
	trapped := map[string]string{
		"roleName": "demo-web", "secretName": "web", "transitKey": "web", "vaultAddress": h.plain.URL,
		"vaultNamespace": "mallory", "vaultAuthMountPath": "mallory",
	}
	// One field at a time: each has a check of its own.
	good := map[string]string{"roleName": "demo-web", "secretName": "web", "transitKey": "web",
		"vaultAuthMountPath": "kubernetes"}
	with := func(parameter, value string) map[string]string {
		c := maps.Clone(good)
		c[parameter] = value
		return c
	}
	single := map[string]map[string]string{
		"address": with("vaultAddress", h.plain.URL), "namespace": with("vaultNamespace", "mallory"),
		"authmount": with("vaultAuthMountPath", "mallory"),
	}
	badClass := map[string]string{"roleName": hostile.Text, "secretName": "web", "transitKey": hostile.Text,
		"vaultAddress": h.plain.URL, hostile.Text: hostile.Text, "objects": "- " + yamlText(hostile.Text)}

	files := map[string]string{
		"FILE": secret("web", "demo", evilData) + "---\n" + secret(hostile.Text, hostile.Text, evilData) + "---\n" +
			secret("mount", "demo", "  annotations: {secretmanager.io/transit-mount: '"+address+"'}\nstringData: {a: "+
				value+"}\n"),
		"ONE":      secret("web", hostile.Text, "stringData: {token: "+value+", "+yamlText(hostile.Text)+": "+value+"}\n"),
		"GOOD":     class("web", good),
		"SECRET":   secret("web", "demo", "stringData: {token: "+value+"}\n"),
		"CLASS":    class("web", trapped),
		"BADCLASS": class(hostile.Text, badClass),
		"KIND": "apiVersion: v1\nkind: " + yamlText(hostile.Text) + "\nmetadata: {name: a}\n---\n" +
			secret("a", "demo", "  annotations: {secretmanager.io/scope: "+yamlText(hostile.Text)+
				", secretmanager.io/transit-mount: "+yamlText(hostile.Text)+"}\ndata: {a: "+yamlText(hostile.Text)+"}\n"),
	}
	for name, parameters := range single {
		files[strings.ToUpper(name)] = class(name, parameters)
	}
	h.words = map[string]string{"DIR": h.dir, "NAME": hostile.Text, "OUT": t.TempDir()}
	for name, text := range files {
		path := filepath.Join(h.dir, strings.ToLower(name)+".yaml")
		check(t, os.WriteFile(path, []byte(text), 0o600))
		h.words[name] = path
	}
	// Names of files are text of an author too, whole repositories are.
	evilFile := strings.ReplaceAll(hostile.Text, "/", "") + ".yaml"
	check(t, os.WriteFile(filepath.Join(h.dir, evilFile), []byte("kind: [secretmanager.io/\n"), 0o600))
	check(t,
		os.WriteFile(filepath.Join(h.dir, "::error::PWNED.yaml"),
			[]byte(secret("q", "demo", "data: {a: bm9uZQ==}\n")), 0o600))
	h.words["LINK"] = filepath.Join(h.dir, evilFile, "none")

	h.run(t, class("bait", trapped), "kubectl", "apply", "-f", "-")
	h.run(t, class("bait-bad", badClass), "kubectl", "apply", "-f", "-")
	for name, parameters := range single {
		h.run(t, class(name, parameters), "kubectl", "apply", "-f", "-")
	}
	pod := strings.ReplaceAll(strings.TrimSuffix(webPod, "---"), "web-0", "bait-0")
	attributes := fmt.Sprintf(
		`{secretProviderClass: bait, vaultAddress: %q, vaultNamespace: mallory, vaultAuthMountPath: mallory}`, h.tls.URL)
	h.apply(t, strings.ReplaceAll(pod, "{secretProviderClass: web}", attributes))
	h.apply(t, strings.ReplaceAll(strings.ReplaceAll(pod, "bait-0", "bait-1"), "{secretProviderClass: web}",
		"{secretProviderClass: bait-bad, \"vaultAddress\": "+yamlText(hostile.Text)+"}"))
	for _, pod := range []string{"bait-0", "bait-1"} {
		h.status(t, "demo", pod, corev1.PodStatus{Phase: corev1.PodPending})
		h.failedMount(t, pod, hostile.Text)
	}
	// Annotations may be anything; names, labels and entries are what the API server takes.
	annotations[ciphertext.AnnotationTransitMount], annotations[ciphertext.AnnotationScope] = address, "strict"
	annotations["argocd.argoproj.io/tracking-id"] = hostile.Text
	for name, more := range map[string]map[string]string{
		"bait":     {ciphertext.AnnotationTransitMount: address},
		"managed":  {ciphertext.AnnotationTransitMount: "transit"},
		"bait-bad": {ciphertext.AnnotationTransitMount: hostile.Text, ciphertext.AnnotationScope: hostile.Text},
	} {
		all := maps.Clone(annotations)
		maps.Copy(all, more)
		data := map[string][]byte{"a": []byte(value)}
		if name == "managed" {
			data = nil // so that entries can be added
		}
		_, err := h.kube.CoreV1().Secrets("demo").Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: all,
				Labels: map[string]string{ciphertext.LabelTransitKey: "web"}},
			Type: ciphertext.Type, Data: data,
		}, metav1.CreateOptions{})
		check(t, err)
	}
	h.sh(t, `kubectl -n demo create secret generic plain --from-literal a=b`)

	// What looks like the provider, first and last among the namespaces.
	for _, namespace := range []string{"aaa", "demo", "zzz"} {
		if namespace != "demo" {
			h.sh(t, "kubectl create namespace "+namespace)
		}
		h.apply(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: vault, namespace: `+namespace+`}
data: {VAULT_ADDR: "`+h.plain.URL+`", VAULT_NAMESPACE: mallory}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: secretmanager-provider, namespace: `+namespace+`, labels: {app.kubernetes.io/name: secretmanager-provider}}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
      - name: provider
        image: mallory
        args: ["--vault-addr=`+h.tls.URL+`", "--vault-auth-mount=mallory", "--vault-allowed-auth-mounts=mallory", "--vault-allowed-namespaces=mallory", "--vault-namespace=mallory"]
        envFrom: [{configMapRef: {name: vault}}]
`)
	}
	// Who may see the class and make tokens, and not the DaemonSets.
	h.sh(t,
		`kubectl -n demo create role half --verb=get,list --resource=pods,secretproviderclasses.secrets-store.csi.x-k8s.io,serviceaccounts,secrets,events
		kubectl -n demo create role token --verb=create --resource=serviceaccounts/token
		kubectl -n demo create rolebinding half --role=half --serviceaccount=demo:nobody
		kubectl -n demo create rolebinding token --role=token --serviceaccount=demo:nobody`)
}

// serve starts a provider, which is asked by mount.
func (h *hostileAuthor) serve(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	buildProvider(t, bin)
	w := &world{vault: &testenv.Vault{Address: h.vault.address}, server: h.server}
	socket, stop, err := w.serve(filepath.Join(bin, "secretmanager-provider"), filepath.Join(bin, "log"))
	check(t, err)
	t.Cleanup(stop)
	h.words["SOCKET"], h.words["TOKEN"] = socket, filepath.Join(bin, "token")
	token, _ := h.server.PodToken(t, "demo", "web-0", "web", "vault", time.Hour)
	check(t, os.WriteFile(h.words["TOKEN"], []byte(token), 0o600))
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

// users are those who run the verbs: with a token in each of the places where it may
// be, with and without an address, with all rights in the cluster and with few.
func (h *hostileAuthor) users(t *testing.T) map[string]map[string]string {
	home, helped := t.TempDir(), t.TempDir()
	check(t, os.WriteFile(filepath.Join(home, ".vault-token"), []byte(h.clinic.vault.RootToken), 0o600))
	helper := filepath.Join(helped, "helper")
	check(t, os.WriteFile(helper, []byte("#!/bin/sh\necho "+h.clinic.vault.RootToken+"\n"), 0o700))
	check(t, os.WriteFile(filepath.Join(helped, ".vault"), []byte("token_helper = \""+helper+"\"\n"), 0o600))
	few, all := h.poor(t, "nobody")["KUBECONFIG"], h.server.Kubeconfig
	return map[string]map[string]string{
		"token file, no address":   {"HOME": home, "KUBECONFIG": few},
		"token helper, no address": {"HOME": helped, "KUBECONFIG": all},
		"token, no address":        {"HOME": t.TempDir(), "KUBECONFIG": few, "VAULT_TOKEN": h.clinic.vault.RootToken},
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
				if saw := trap.take(); len(saw) > 0 {
					t.Errorf("%s: %s %s: %s got %q\n%s%s", name, verb, line, trap.URL, saw, stdout, stderr)
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
		t.Errorf("only %d requests with credentials came to the user's own Vault", used)
	}
	if mounted == 0 {
		t.Error("no mount of the good class reached Vault")
	}
	// The traps see what comes.
	for _, trap := range []*trap{h.plain, h.tls} {
		if _, err := trap.Client().Get(trap.URL); err != nil || len(trap.take()) < 2 {
			t.Errorf("%s sees nothing: %v", trap.URL, err)
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
				t.Errorf("%s %s: a workflow command of the author's: %q", verb, line, text)
			}
		}
	}
	// What was printed is what the author wrote, and not an error before that.
	if code, stdout, stderr := h.call(t, env, "encrypt",
		"managed --from-literal b=c --dry-run=server -o yaml"); code != cli.ExitDone || !strings.Contains(stdout, "PWNED") {
		t.Errorf("a manifest: exit code %d: %s%s", code, stdout, stderr)
	}
	if shown < 50 {
		t.Errorf("only %d of the author's texts were shown", shown)
	}
}
