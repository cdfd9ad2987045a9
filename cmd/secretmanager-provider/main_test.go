package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/async"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// TestMain runs the program itself if a test started this process as one.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_RUN_MAIN") != "" {
		main()
	}
	testenv.Main(m)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// dial returns a client of a provider like the driver's.
func dial(t *testing.T, endpoint string) v1alpha1.CSIDriverProviderClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return v1alpha1.NewCSIDriverProviderClient(conn)
}

// mountRequest returns the request of pod app-0 in namespace demo, for a Secret with entry x.
func mountRequest(role, key, jwt, ciphertext string) *v1alpha1.MountRequest {
	return &v1alpha1.MountRequest{
		Attributes: text(map[string]string{
			"roleName": role, "secretName": "s", "transitKey": key, "csi.storage.k8s.io/pod.namespace": "demo",
			"csi.storage.k8s.io/pod.name": "app-0", "csi.storage.k8s.io/pod.uid": "1",
			"csi.storage.k8s.io/serviceAccount.name":   "app",
			"csi.storage.k8s.io/serviceAccount.tokens": text(map[string]any{"vault": map[string]string{"token": jwt}}),
		}),
		Secrets: text(map[string]string{"x": ciphertext}),
	}
}

// podToken returns the token of the pod of mountRequest.
func podToken() string {
	return fixture.Issuer().PodToken("demo", "app-0", "1", "app", "vault", time.Hour)
}

// newFixture creates a role for this pod, named like the key, and entry x of its Secret.
func newFixture(t *testing.T, mount string) (f *fixture.Transit, entry string) {
	t.Helper()
	f = fixture.NewTransit(t)
	if mount != "jwt" {
		f.Write("sys/auth/"+mount, map[string]any{"type": "jwt"})
	}
	f.Must(f.Vault.TrustIssuer(t.Context(), mount, fixture.Issuer()))
	f.AllowLogin(testenv.Role{Mount: mount, Name: f.Key, Namespace: "demo", ServiceAccount: "app",
		Policies: []string{f.Policy(fixture.DecryptPolicy)}})
	return f, f.Encrypt(ciphertext.Key{Mount: "transit", Name: f.Key}, []byte("strict:demo/s/x"), "c4nary")
}

// TestProgram runs the program as a process, mounts from a real Vault, and stops the
// process with a signal.
func TestProgram(t *testing.T) {
	f, entry := newFixture(t, "jwt")
	dir := t.TempDir()
	endpoint, health, metrics, profiles := filepath.Join(dir, "p.sock"), freeAddress(t), freeAddress(t), freeAddress(t)
	var stdout, stderr async.Buffer
	program := exec.CommandContext(t.Context(), os.Args[0], "--endpoint="+endpoint,
		"--version-key-file="+filepath.Join(dir, "key"),
		"--health-addr="+health, "--metrics-addr="+metrics, "--pprof-addr="+profiles, "--log-format=json",
		"--log-level=debug", "--vault-auth-mount=jwt")
	program.Env = append(os.Environ(), "TEST_RUN_MAIN=1", "VAULT_ADDR="+f.Vault.Address, "KUBERNETES_SERVICE_HOST=",
		"NODE_NAME=node-7")
	program.Stdout, program.Stderr = &stdout, &stderr
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Process.Kill(); program.Wait() })
	async.Wait(t, "readiness", func() bool { code, _ := get(health, "/readyz"); return code == 200 })
	for _, page := range []struct {
		address, path string
		code          int
		text          string
	}{
		{health, "/healthz", 200, "ok"},
		{health, "/metrics", 404, ""},
		{health, "/debug/pprof/", 404, ""},
		{metrics, "/metrics", 200, "secretmanager_provider_mounts_total"},
		{metrics, "/debug/pprof/", 404, ""},
		{metrics, "/debug/pprof/cmdline", 404, ""},
		{profiles, "/debug/pprof/", 200, "goroutine"},
		{profiles, "/debug/pprof/heap", 200, ""},
		{profiles, "/metrics", 404, ""},
	} {
		if code, text := get(page.address, page.path); code != page.code || !strings.Contains(text, page.text) {
			t.Errorf("%s: %d %s", page.path, code, text)
		}
	}

	driver := dial(t, endpoint)
	version, err := driver.Version(t.Context(), &v1alpha1.VersionRequest{})
	if err != nil || !strings.HasPrefix(version.RuntimeVersion, "v") {
		t.Errorf("version %v, %v", version, err)
	}
	jwt := podToken()
	mount := func(key string) (*v1alpha1.MountResponse, error) {
		return driver.Mount(t.Context(), mountRequest(f.Key, key, jwt, entry))
	}
	_, refused := mount("another")
	if refused == nil {
		t.Error("no error for a key that the policy does not allow")
	}
	resp, err := mount(f.Key)
	if err != nil || len(resp.Files) != 1 || string(resp.Files[0].Contents) != "c4nary" {
		t.Errorf("got %v, %v", resp, err)
	}

	_, counted := get(metrics, "/metrics")
	for _, line := range []string{`mounts_total{reason="OK",result="success"} 1`,
		`mounts_total{reason="DecryptDenied",result="failure"} 1`} {
		if !strings.Contains(counted, "secretmanager_provider_"+line+"\n") {
			t.Errorf("the metrics do not have %s:\n%s", line, counted)
		}
	}
	_, heap := get(profiles, "/debug/pprof/heap?debug=1")

	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if _, err := os.Lstat(endpoint); err == nil {
		t.Error("the socket still exists")
	}
	log := stderr.String()
	for line := range strings.Lines(log) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line that is not JSON: %s", line)
		}
	}
	for _, secret := range []string{"c4nary", jwt, entry} {
		for where, text := range map[string]string{"log": log, "audit log": stdout.String(),
			"error": fmt.Sprint(refused), "metrics": counted, "profile": heap} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s contains %q:\n%s", where, secret, text)
			}
		}
	}
	// Standard output contains only the audit log, including the last record.
	var outcomes []string
	for line := range strings.Lines(stdout.String()) {
		var record struct{ Schema, Node, Pod, Outcome string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Schema != "secretmanager.io/audit/v1" ||
			record.Node != "node-7" || record.Pod != "app-0" {
			t.Errorf("%v: %s", err, line)
		}
		outcomes = append(outcomes, record.Outcome)
	}
	if fmt.Sprint(outcomes) != "[denied decrypted]" {
		t.Errorf("the audit log has %v", outcomes)
	}
	for _, text := range []string{`"msg":"mounted"`, `"msg":"mount failed"`, `"msg":"stopped"`} {
		if !strings.Contains(log, text) {
			t.Errorf("the log does not have %s:\n%s", text, log)
		}
	}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func get(address, path string) (int, string) {
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// TestServesUntilLastMount verifies that probes and metrics get a response while the program
// finishes its mounts, and not after that.
func TestServesUntilLastMount(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(reached)
		<-release
		w.WriteHeader(http.StatusForbidden)
	}))
	defer vault.Close()
	defer func() {
		klog.ClearLogger()
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}()
	dir := t.TempDir()
	endpoint, health, metrics := filepath.Join(dir, "p.sock"), freeAddress(t), freeAddress(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr async.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx,
			[]string{"--vault-addr=" + vault.URL, "--endpoint=" + endpoint, "--version-key-file=" + filepath.Join(dir, "key"),
				"--health-addr=" + health, "--metrics-addr=" + metrics}, getenv(nil), &stdout, &stderr)
	}()
	async.Wait(t, "readiness", func() bool { code, _ := get(health, "/readyz"); return code == 200 })
	mounted := make(chan error, 1)
	client := dial(t, endpoint)
	go func() {
		_, err := client.Mount(t.Context(), mountRequest("app", "app", podToken(), "vault:v1:"+strings.Repeat("A", 40)))
		mounted <- err
	}()
	<-reached
	klog.ErrorS(errors.New("why"), "from client-go")
	if text := stderr.String(); !strings.Contains(text, `level=ERROR msg="from client-go" err=why`) {
		t.Errorf("the log does not have client-go's:\n%s", text)
	}
	cancel()
	var code int
	async.Wait(t, "the end of readiness", func() bool { code, _ = get(health, "/readyz"); return code != 200 })
	if code != 503 {
		t.Errorf("/readyz: %d with a mount in progress", code)
	}
	if _, text := get(metrics, "/metrics"); !strings.Contains(text, "secretmanager_provider_mounts_in_flight 1\n") {
		t.Errorf("the metrics do not have the mount in progress:\n%s", text)
	}
	close(release)
	if err := <-mounted; status.Code(err) != codes.PermissionDenied {
		t.Error(err)
	}
	if code := <-ended; code != 0 {
		t.Errorf("code %d: %s", code, stderr.String())
	}
	for _, address := range []string{health, metrics} {
		if code, _ := get(address, "/metrics"); code != 0 {
			t.Errorf("%s still responds", address)
		}
	}
}

// TestRunFails lists errors at startup.
func TestRunFails(t *testing.T) {
	dir := t.TempDir()
	good := []string{"--vault-addr=http://127.0.0.1:1", "--endpoint=" + filepath.Join(dir, "p.sock"),
		"--version-key-file=" + filepath.Join(dir, "key")}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct {
		name string
		args []string
		env  map[string]string
		code int
		text string
	}{
		{"bad flags", []string{"--log-level=loud"}, nil, 2, "--log-level"},
		{"no folder for the key", []string{"--version-key-file=/proc/nowhere/key"}, nil, 1, "version key"},
		{"no directory for the socket", []string{"--endpoint=" + filepath.Join(dir, "nowhere", "p.sock")}, nil,
			1, "listening on"},
		{"no kubeconfig", []string{"--kubeconfig=" + filepath.Join(dir, "nowhere")}, nil, 1, "reading kubeconfig"},
		{"no CA in a cluster", nil, map[string]string{"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "443"},
			1, "ca.crt"},
		{"no CA for Vault", []string{"--vault-ca-cert=" + filepath.Join(dir, "nowhere")}, nil, 1, "TLS to Vault"},
		{"taken health address", []string{"--health-addr=" + taken.Addr().String()}, nil, 1, "listening for health probes"},
		{"taken metrics address", []string{"--metrics-addr=" + taken.Addr().String()}, nil, 1, "listening for metrics"},
		{"taken address for profiles", []string{"--pprof-addr=" + taken.Addr().String()}, nil, 1, "listening for profiles"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var stdout, stderr async.Buffer
			code := run(ctx, append(good[:len(good):len(good)], test.args...), getenv(test.env), &stdout, &stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.text) {
				t.Errorf("code %d, %s", code, stderr.String())
			}
			if strings.Contains(stdout.String(), "=") {
				t.Errorf("on stdout: %s", stdout.String())
			}
		})
	}
}

// TestKlog verifies that the log of client-go has the same format.
func TestKlog(t *testing.T) {
	o, err := parse([]string{"--vault-addr=https://x", "--log-format=json", "--log-level=warn"}, getenv(nil), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var b async.Buffer
	klog.SetSlogLogger(o.log.Logger(&b))
	defer klog.ClearLogger()
	klog.InfoS("not at this level")
	klog.ErrorS(fmt.Errorf("why"), "what")
	if got := strings.Count(b.String(), "\n"); got != 1 ||
		!strings.Contains(b.String(), `"level":"ERROR","msg":"what"`) || !strings.Contains(b.String(), `"err":"why"`) {
		t.Errorf("got %s", b.String())
	}
}
