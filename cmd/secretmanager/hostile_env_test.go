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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/cliscript"
	"github.com/secretmanager-io/secretmanager/test/hostile"
	"github.com/secretmanager-io/secretmanager/test/relay"
)

type hostileAuthor struct {
	*doctorEnv
	dir        string
	plain, tls *trap
	vault      *recordingProxy
	words      map[string]string // for the $NAMEs of command lines
}

// trap is a server of the attacker. No verb may connect to it.
type trap struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
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
	t.requests = append(t.requests, what)
}

func (t *trap) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	requests := t.requests
	t.requests = nil
	return requests
}

// providerSent is the sender that recordingProxy records for requests of the provider.
const providerSent = "provider"

// recordingProxy is a proxy for Vault that records the sender, namespace and path of each request with
// credentials.
type recordingProxy struct {
	trap
	address string
}

func newRecordingProxy(t *testing.T, address string) *recordingProxy {
	w := &recordingProxy{}
	vault, err := relay.New(address, nil)
	check(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, "the body could not be read", http.StatusBadGateway)
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
		r.Header.Del("X-Vault-Namespace") // this Vault has no namespaces
		vault.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.address = server.URL
	return w
}

func yamlText(s string) string { return fmt.Sprintf("%q", s) }

// createObjects creates the objects and files of the attacker.
func (h *hostileAuthor) createObjects(t *testing.T) {
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
	// One parameter at a time, as each has its own check.
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
	// Names of files are text of the attacker, too.
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
	// The API server validates names, labels and entries, but not annotations.
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

	// DaemonSets that look like the provider, in the first and the last namespace.
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
metadata:
  name: secretmanager-provider
  namespace: `+namespace+`
  labels: {app.kubernetes.io/name: secretmanager-provider}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
      - name: provider
        image: mallory
        args:
        - --vault-addr=`+h.tls.URL+`
        - --vault-auth-mount=mallory
        - --vault-namespace=mallory
        - --vault-allowed-auth-mounts=mallory
        - --vault-allowed-namespaces=mallory
        envFrom: [{configMapRef: {name: vault}}]
`)
	}
	// A service account that may read the class and create tokens, but not read DaemonSets.
	h.sh(t, `
		kubectl -n demo create role half --verb=get,list \
			--resource=pods,serviceaccounts,secrets,events \
			--resource=secretproviderclasses.secrets-store.csi.x-k8s.io
		kubectl -n demo create role token --verb=create --resource=serviceaccounts/token
		kubectl -n demo create rolebinding half --role=half --serviceaccount=demo:nobody
		kubectl -n demo create rolebinding token --role=token --serviceaccount=demo:nobody`)
}

// serve starts a provider for the verb mount.
func (h *hostileAuthor) serve(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	cliscript.LinkPrograms(t, bin)
	socket, stop, err := cliscript.ServeProvider(h.server.Kubeconfig, h.vault.address,
		filepath.Join(bin, "secretmanager-provider"), filepath.Join(bin, "log"))
	check(t, err)
	t.Cleanup(stop)
	h.words["SOCKET"], h.words["TOKEN"] = socket, filepath.Join(bin, "token")
	token, _ := h.server.PodToken(t, "demo", "web-0", "web", "vault", time.Hour)
	check(t, os.WriteFile(h.words["TOKEN"], []byte(token), 0o600))
}
