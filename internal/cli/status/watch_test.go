package status

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// watching is a running status -w -o json.
type watching struct {
	t     *testing.T
	w     *fixture.Fixture
	ns    string // and the name of the key
	stop  context.CancelFunc
	done  chan error
	lines chan inventory.Secret
}

// timeout bounds the wait for a condition on a busy machine.
const timeout = time.Minute

func watchStatus(t *testing.T, w *fixture.Fixture, kubeconfig string) *watching {
	t.Helper()
	x := &watching{t: t, w: w, done: make(chan error, 1), lines: make(chan inventory.Secret, 100)}
	x.ns = w.Namespace
	x.create("one", "vault:v1:", true)
	env := map[string]string{"VAULT_ADDR": w.Vault.Address, "VAULT_TOKEN": w.Vault.RootToken}
	out, in := io.Pipe()
	p := cli.NewFactory(cli.Environment{
		ProgramName: "secretmanager", Getenv: func(name string) string { return env[name] },
		IOStreams: genericiooptions.IOStreams{Out: in, ErrOut: t.Output()},
	})
	*p.KubeFlags.KubeConfig, *p.KubeFlags.Namespace = kubeconfig, x.ns
	o := &Options{Factory: p, output: "json", follow: true, keyPoll: 50 * time.Millisecond,
		settle: options.Settle{Duration: -1}}
	ctx, stop := context.WithCancel(t.Context())
	x.stop = stop
	go func() {
		err := o.Run(ctx)
		in.Close()
		x.done <- err
	}()
	go func() {
		defer close(x.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var row inventory.Secret
			if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
				t.Errorf("%q: %v", lines.Text(), err)
			}
			x.lines <- row
		}
	}()
	t.Cleanup(func() { x.end() })
	x.next("one", inventory.Current)
	return x
}

// end interrupts the watch.
func (x *watching) end() {
	if x.stop == nil {
		return
	}
	x.stop()
	x.stop = nil
	if err := <-x.done; err != nil {
		x.t.Errorf("it ended with %v", err)
	}
}

// next waits for the next line, which must be this one: unchanged Secrets are not repeated.
func (x *watching) next(name string, s inventory.State) inventory.Secret {
	x.t.Helper()
	select {
	case row, ok := <-x.lines:
		if !ok || row.Name != name || row.State != s {
			x.t.Fatalf("the next line is of %q, %s; want %q, %s", row.Name, row.State, name, s)
		}
		return row
	case <-time.After(timeout):
		x.t.Fatalf("no line says that %q is %s", name, s)
	}
	return inventory.Secret{}
}

func (x *watching) create(name, prefix string, label bool) {
	x.t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: ciphertext.Type,
		Data: map[string][]byte{"e": []byte(prefix + strings.Repeat("A", 40))},
	}
	if label {
		secret.Labels = map[string]string{ciphertext.LabelTransitKey: x.ns}
	}
	if _, err := x.w.Kube.CoreV1().Secrets(x.ns).Create(x.t.Context(), secret, metav1.CreateOptions{}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *watching) patch(name, patch string) {
	x.t.Helper()
	if _, err := x.w.Kube.CoreV1().Secrets(x.ns).Patch(x.t.Context(), name, types.MergePatchType, []byte(patch),
		metav1.PatchOptions{}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *watching) remove(name string) {
	x.t.Helper()
	if err := x.w.Kube.CoreV1().Secrets(x.ns).Delete(x.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *watching) rotate() {
	x.t.Helper()
	x.w.RotateKey()
}

func TestStatusWatch(t *testing.T) {
	w := fixture.New(t)
	x := watchStatus(t, w, w.API.Kubeconfig)
	// A change that is not shown, then one that is.
	x.patch("one", `{"metadata":{"labels":{"other":"x"}}}`)
	x.create("two", "vault:v1:", true)
	x.next("two", inventory.Current)
	// The key is rotated: no Secret has changed, and both are behind.
	x.rotate()
	x.next("one", inventory.Behind)
	if row := x.next("two", inventory.Behind); row.Latest != 2 {
		t.Errorf("the newest version is %d", row.Latest)
	}
	x.remove("two")
	x.next("two", inventory.Deleted)
	// Without the label, the selection by type finds it.
	x.create("three", "vault:v2:", false)
	x.next("three", inventory.Broken)
	x.patch("three", `{"metadata":{"labels":{"secretmanager.io/transit-key":"`+x.ns+`"}}}`)
	for row := range x.lines { // it may be missing in between
		if row.Name == "three" && row.State == inventory.Current {
			break
		}
		if row.State != inventory.Deleted {
			t.Fatalf("%q is %s", row.Name, row.State)
		}
	}
	x.remove("three")
	x.next("three", inventory.Deleted)
	x.end()
}

// If a Secret has a newer version than the key, the key is read again before the Secret is broken.
func TestStatusWatchReadsNewVersions(t *testing.T) {
	w := fixture.New(t)
	x := watchStatus(t, w, w.API.Kubeconfig)
	x.rotate()
	x.create("two", "vault:v2:", true)
	seen := map[string]inventory.State{}
	for len(seen) < 2 {
		select {
		case row := <-x.lines:
			seen[row.Name] = row.State
		case <-time.After(timeout):
			t.Fatalf("only seen: %v", seen)
		}
	}
	if seen["one"] != inventory.Behind || seen["two"] != inventory.Current {
		t.Errorf("seen: %v", seen)
	}
}

// After an expired resource version (410), a new list has the changes.
func TestStatusWatchExpired(t *testing.T) {
	w := fixture.New(t)
	proxy := newWatchProxy(t, w)
	x := watchStatus(t, w, proxy.kubeconfig)
	x.create("two", "vault:v1:", true)
	x.next("two", inventory.Current)
	proxy.hold() // no event gets through
	x.remove("two")
	x.create("three", "vault:v1:", true)
	proxy.expire()
	x.next("two", inventory.Deleted)
	x.next("three", inventory.Current)
	x.create("four", "vault:v1:", true)
	x.next("four", inventory.Current)
}

func TestStatusWatchDenied(t *testing.T) {
	w := fixture.New(t)
	proxy := newWatchProxy(t, w)
	x := watchStatus(t, w, proxy.kubeconfig)
	proxy.deny()
	select {
	case err := <-x.done:
		x.stop = nil
		if err == nil || !strings.Contains(err.Error(), "watching Secrets: ") || !strings.Contains(err.Error(), "forbidden") {
			t.Errorf("error %v", err)
		}
	case <-time.After(timeout):
		t.Fatal("it goes on")
	}
}

// watchProxy is a proxy for the API server that simulates slow or denied watches: it ends
// watches, and responds to new ones itself.
type watchProxy struct {
	t          *testing.T
	kubeconfig string
	mu         sync.Mutex
	cut        context.CancelFunc
	cuts       context.Context
	answer     func(http.ResponseWriter) // nil: the API server's
	held       chan struct{}
}

func newWatchProxy(t *testing.T, w *fixture.Fixture) *watchProxy {
	t.Helper()
	transport, err := rest.TransportFor(w.API.Config)
	if err != nil {
		t.Fatal(err)
	}
	forward, err := relay.New(w.API.Address, transport)
	if err != nil {
		t.Fatal(err)
	}
	forward.FlushInterval, forward.ErrorHandler = -1, func(http.ResponseWriter, *http.Request, error) {}
	p := &watchProxy{t: t, held: make(chan struct{})}
	p.cuts, p.cut = context.WithCancel(context.Background())
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "" {
			forward.ServeHTTP(rw, r)
			return
		}
		p.mu.Lock()
		cuts, answer := p.cuts, p.answer
		p.mu.Unlock()
		if answer != nil {
			answer(rw)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(cuts, cancel)()
		forward.ServeHTTP(rw, r.WithContext(ctx))
	}))
	t.Cleanup(func() {
		p.set(func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusServiceUnavailable) })
		server.Close()
	})
	p.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}],
contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}`, server.URL)
	if err := os.WriteFile(p.kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// set ends all watches.
func (p *watchProxy) set(answer func(http.ResponseWriter)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
	p.cut()
	p.cuts, p.cut = context.WithCancel(context.Background())
}

// hold responds with watches without events, until they are ended.
func (p *watchProxy) hold() {
	p.set(func(rw http.ResponseWriter) {
		p.mu.Lock()
		cuts := p.cuts
		p.mu.Unlock()
		rw.Header().Set("Content-Type", "application/json")
		rw.(http.Flusher).Flush()
		select {
		case p.held <- struct{}{}:
		case <-cuts.Done():
		}
		<-cuts.Done()
	})
	for range 2 {
		select {
		case <-p.held:
		case <-time.After(timeout):
			p.t.Fatal("nobody watches")
		}
	}
}

func status4xx(code int, reason string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"%s","reason":"%s","code":%d}`,
		strings.ToLower(reason), reason, code)
}

// expire responds to each of the two watches once with an expired resource version, then passes them to
// the API server.
func (p *watchProxy) expire() {
	left := 2
	answer := func(rw http.ResponseWriter) {
		p.mu.Lock()
		if left--; left <= 0 {
			p.answer = nil
		}
		p.mu.Unlock()
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(rw, "{\"type\":\"ERROR\",\"object\":%s}\n", status4xx(http.StatusGone, "Expired"))
	}
	p.set(answer)
}

func (p *watchProxy) deny() {
	p.set(func(rw http.ResponseWriter) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(http.StatusForbidden)
		fmt.Fprint(rw, status4xx(http.StatusForbidden, "Forbidden"))
	})
}
