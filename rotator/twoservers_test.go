package rotator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestTwoServers rotates a key again and again with a pair of real servers, one of which lags behind. When the first
// Secret of a round is written, and at its end, pods mount it and status is called. No old version is written, nothing
// fails, and neither the rotator nor status takes the key for a restored one.
func TestTwoServers(t *testing.T) {
	few, some := 20, 1
	if long() {
		few, some = 1000, 30
	}
	e := newTwoServers(t)
	e.run(200*time.Millisecond, few)
	e.run(5*time.Second, some)
}

// twoServers is a pair of servers and what uses them.
type twoServers struct {
	*testFixture
	t        *testing.T
	pair     *pair
	session  *transit.Session // at the pair, as the rotator has it
	direct   *secretmanager.Client
	provider *provider.Provider
	kube     kubernetes.Interface // of the rotator

	rounds, pods int
	written      func() // is called after a Secret was written
}

func newTwoServers(t *testing.T) *twoServers {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	active := testenv.NewVault(t)
	inVault := fixture.In(t, active)
	inVault.Key = testenv.UniqueName("pair")
	p := newPair(t, active, inVault.Key, rand.New(rand.NewPCG(seed, 0)))
	f := onServers(inVault.With(testenv.SharedAPIServer(t)))
	f.TrustIssuer()
	f.AllowLogin(testenv.Role{Mount: "jwt", Name: f.Key, Namespace: f.Namespace, ServiceAccount: "app",
		Policies: []string{f.Policy(fixture.DecryptPolicy)}})
	f.CreateNamespace(rotator.DefaultStateNamespace)
	e := &twoServers{testFixture: f, t: t, pair: p, direct: secretmanager.New(f.Root, f.Kube)}
	client, err := transit.NewClient(transit.Config{Address: p.address, RetryFor: time.Minute})
	f.Must(err)
	e.session = client.Session("", transit.StaticToken(active.RootToken))
	e.provider, err = provider.New(provider.Config{
		Vault: transit.Config{Address: p.address}, AuthMount: "jwt", Audience: provider.DefaultAudience,
		VersionKey: make([]byte, 32), Log: slog.New(slog.DiscardHandler), BuildVersion: "test",
	})
	f.Must(err)
	for _, s := range secrets {
		f.CreateSecret(f.encrypt(f.Namespace, s, map[string]string{"e": s, "d": s}))
	}
	t.Cleanup(func() { // other tests list all Secrets of the cluster
		f.Must(f.Kube.CoreV1().Secrets(f.Namespace).DeleteCollection(context.Background(), metav1.DeleteOptions{},
			metav1.ListOptions{}))
	})
	e.kube = f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			if r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/secrets/") {
				e.written()
			}
			return response, err
		})
	})
	return e
}

// secrets are the names of the Secrets, each with two entries.
var secrets = []string{"a", "b", "c"}

// run makes rounds with a standby that lags behind for at most lag.
func (e *twoServers) run(lag time.Duration, rounds int) {
	e.pair.begin(lag)
	var slowest time.Duration
	for n := 0; n < rounds && !e.t.Failed(); n++ {
		e.rounds++
		began := time.Now()
		e.round(e.rounds)
		slowest = max(slowest, time.Since(began))
	}
	stale := e.pair.staleResponses()
	e.t.Logf("lags up to %s: %d rounds, the slowest took %s; stale responses: %v", lag, rounds,
		slowest.Round(time.Millisecond), stale)
	for _, operation := range []string{"keys", "rewrap", "decrypt"} {
		if stale[operation] == 0 && rounds > 1 {
			e.t.Errorf("the standby answered no %s while it lagged behind", operation)
		}
	}
}

// round rotates the key and rewraps the Secrets, while others use them.
func (e *twoServers) round(round int) {
	var users sync.WaitGroup
	var first sync.Once
	e.pair.hold()
	e.written = func() {
		first.Do(func() {
			users.Go(func() { e.mount(round, "after the first write") })
			users.Go(func() { e.checkStatus(round, "after the first write") })
			e.pair.release()
		})
	}
	report, err := rotator.RunInside(e.t.Context(), e.session, e.kube, e.options(func(o *rotator.Options) {
		o.Rotate = rotator.Always
	}), rotator.Inside{LagFor: 30 * time.Second})
	e.pair.release()
	users.Wait()
	if err != nil {
		e.t.Errorf("round %d: %v", round, err)
		return
	}
	if k := onlyKey(e.t, report); k.Target != round+1 || k.Rewrapped != 2*len(secrets) || k.Unresolved.Count != 0 {
		e.t.Errorf("round %d: %+v", round, k)
	}
	e.checkStatus(round, "at the end")
	e.mount(round, "at the end")
	for _, s := range secrets {
		data, err := e.direct.Read(e.t.Context(), e.Namespace, s)
		if err != nil || string(data["e"]) != s || string(data["d"]) != s {
			e.t.Errorf("round %d: Secret %s is %q: %v", round, s, data, err)
		}
		for entry, version := range versions(e.t, e.GetSecret(e.Namespace, s)) {
			if version != round+1 {
				e.t.Errorf("round %d: entry %s of Secret %s has version %d", round, entry, s, version)
			}
		}
	}
}

// mount mounts each Secret into a new pod.
func (e *twoServers) mount(round int, when string) {
	lags := e.pair.lags()
	for _, s := range secrets {
		stored, err := e.Kube.CoreV1().Secrets(e.Namespace).Get(e.t.Context(), s, metav1.GetOptions{})
		if err != nil {
			e.t.Error(err)
			return
		}
		response, err := e.provider.Mount(e.t.Context(), e.mountRequest(stored))
		files := map[string]string{}
		for _, file := range response.GetFiles() {
			files[file.Path] = string(file.Contents)
		}
		if err != nil || len(files) != 2 || files["e"] != s || files["d"] != s {
			e.t.Errorf("round %d, %s (lag: %t): mounting Secret %s: %v, files %q", round, when, lags, s, err, files)
		}
	}
}

// mountRequest returns the driver's request for a new pod.
func (e *twoServers) mountRequest(s *corev1.Secret) *v1alpha1.MountRequest {
	e.pods++
	pod := fmt.Sprint("app-", e.pods)
	tokens := encode(map[string]any{"vault": map[string]any{"expirationTimestamp": time.Now().Add(time.Hour),
		"token": fixture.Issuer().PodToken(e.Namespace, pod, "uid-"+pod, "app", "vault", time.Hour)}})
	entries := map[string]string{}
	for entry, text := range s.Data {
		entries[entry] = string(text)
	}
	return &v1alpha1.MountRequest{TargetPath: "/var/lib/kubelet/pods/" + pod, Permission: "420", Secrets: encode(entries),
		Attributes: encode(map[string]string{
			"roleName": e.Key, "secretName": s.Name, "transitKey": e.Key,
			class.AttributePodNamespace: e.Namespace, class.AttributePodName: pod, class.AttributePodUID: "uid-" + pod,
			class.AttributeAccount: "app", class.AttributeEphemeral: "true", class.AttributeClass: "matrix",
			class.AttributeTokens: tokens,
		})}
}

// checkStatus calls status. Each Secret must be current, or behind while the rotator has not written it.
func (e *twoServers) checkStatus(round int, when string) {
	var out, errOut bytes.Buffer
	environment := map[string]string{"VAULT_ADDR": e.pair.address, "VAULT_TOKEN": e.Vault.RootToken,
		"SECRETMANAGER_SETTLE": "0s"}
	code := root.Run(e.t.Context(), cli.Environment{
		IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut},
		ProgramName: "secretmanager", Getenv: func(name string) string { return environment[name] },
	}, []string{"status", "-o", "json", "--kubeconfig", e.API.Kubeconfig, "-n", e.Namespace})
	var status struct {
		Secrets []struct{ Name, State string }
	}
	if err := json.Unmarshal(out.Bytes(), &status); code != cli.ExitDone || err != nil ||
		len(status.Secrets) != len(secrets) {
		e.t.Errorf("round %d, %s: status: code %d, %v: %s%s", round, when, code, err, out.String(), errOut.String())
	}
	for _, s := range status.Secrets {
		if s.State != "current" && s.State != "behind" {
			e.t.Errorf("round %d, %s: Secret %s is %s: %s%s", round, when, s.Name, s.State, out.String(), errOut.String())
		}
	}
}

// encode encodes strings and times as JSON, which cannot fail.
func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}
