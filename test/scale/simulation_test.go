package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	namespace  = "demo"
	account    = "app"
	role       = "app"
	transitKey = "app"
	entry      = "password"
)

// plan has the events of each pod and volume in a simulation. Pods and volumes are
// numbered across nodes.
type plan struct {
	start   func(pod int) time.Duration    // when it starts, or its first mount
	age     func(pod int) time.Duration    // of the kubelet's tokens at the start; nil: no tokens
	replace func(pod int) time.Duration    // when another pod replaces it; nil: never
	rewrap  func(volume int) time.Duration // when its Secret is rewrapped; nil: never
	lasts   time.Duration
}

// spread returns moments with an even distribution over a time, from one of several
// independent sequences. Random moments would need many more pods to be as even.
func spread(sequence, of int, over time.Duration) func(int) time.Duration {
	return func(i int) time.Duration { return time.Duration(part(i, sequence, of) * float64(over)) }
}

// spreadVolumes does the same for volumes, with a sequence for each volume of a pod.
// Sequence 0 is for [Cluster.spreadPods].
func (c Cluster) spreadVolumes(over time.Duration) func(int) time.Duration {
	return func(volume int) time.Duration {
		return spread(1+volume%c.Volumes, 1+c.Volumes, over)(volume / c.Volumes)
	}
}

func (c Cluster) spreadPods(over time.Duration) func(int) time.Duration {
	return spread(0, 1+c.Volumes, over)
}

// boot returns moments at which nodes return evenly over a time, each with all of its pods
// at once.
func (c Cluster) boot(nodes int, over time.Duration) func(int) time.Duration {
	return func(pod int) time.Duration {
		return time.Duration((float64(pod/c.Pods) + 0.5) / float64(nodes) * float64(over))
	}
}

func after(d time.Duration, f func(int) time.Duration) func(int) time.Duration {
	return func(i int) time.Duration { return d + f(i) }
}

// simulate runs nodes with a real Provider each, in synthetic time.
func simulate(t *testing.T, c Cluster, k Caches, nodes int, p plan) *counts {
	t.Helper()
	s := &simulation{cluster: c, caches: k, plan: p}
	var err error
	if s.issuer, err = testenv.NewJWTIssuer(); err != nil {
		t.Fatal(err)
	}
	s.counts.times = float64(c.Nodes) / float64(nodes)
	ttl := c.TokenTTL
	if !k.Tokens {
		// The cache of Vault tokens cannot be turned off. These expire before the next mount.
		ttl = time.Second
	}
	s.vault = newFakeVault(t, ttl, &s.clock, &s.counts)
	s.api = newFakeAPI(t, &s.clock, &s.counts, s.secret)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var wait sync.WaitGroup
		for i := range nodes {
			n := s.node(t, i, began)
			for j := range c.Pods {
				wait.Go(func() { n.run(t, i*c.Pods+j) })
			}
		}
		wait.Wait()
	})
	if s.failed.Load() != nil {
		t.Fatal(*s.failed.Load())
	}
	if n := s.vault.denied.Load() + s.api.denied.Load(); n > 0 {
		t.Errorf("%d requests were denied", n)
	}
	return &s.counts
}

type simulation struct {
	cluster Cluster
	caches  Caches
	plan    plan
	clock   clock
	counts  counts
	issuer  *testenv.JWTIssuer
	vault   *fakeVault
	api     *fakeAPI
	failed  atomic.Pointer[error] // the first error
}

func plaintext(volume int) string { return fmt.Sprintf("the password of volume %d", volume) }

// secret returns the data of a volume's Secret at a time, or nil if it does not exist.
func (s *simulation) secret(name string, at time.Duration) map[string][]byte {
	var volume int
	if _, err := fmt.Sscanf(name, "secret-%d", &volume); err != nil {
		return nil
	}
	version := 1
	if s.plan.rewrap != nil && at >= s.plan.rewrap(volume) {
		version = 2
	}
	return map[string][]byte{entry: encode(version, plaintext(volume))}
}

// node simulates a kubelet and a driver by the rules in docs/scale.md, with a real
// provider.
type node struct {
	*simulation
	provider *provider.Provider
	began    time.Time

	mu     sync.Mutex
	random *rand.Rand
}

func (s *simulation) node(t *testing.T, index int, began time.Time) *node {
	// Without TLS client-go uses http.DefaultTransport. Idle connections of a synctest
	// bubble in it would break the Close of a server outside of the bubble.
	kube, err := provider.NewSecretReader(&rest.Config{Host: s.api.URL, Transport: &http.Transport{}})
	if err != nil {
		t.Fatal(err)
	}
	config := provider.Config{
		Vault: transit.Config{Address: s.vault.URL}, Audience: provider.DefaultAudience, VersionKey: make([]byte, 32),
		SecretReader: kube, Log: slog.New(slog.DiscardHandler),
	}
	if s.caches.Republish {
		config.RepublishCacheBytes = provider.DefaultRepublishCacheBytes
	}
	p, err := provider.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return &node{simulation: s, provider: p, began: began, random: rand.New(rand.NewPCG(1, uint64(index)))}
}

func (n *node) now() time.Duration { return time.Since(n.began) }

// next returns the time until the kubelet repeats a mount.
func (n *node) next() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.cluster.Republish
	return r.Min + time.Duration(n.random.Int64N(int64(r.Max-r.Min)))
}

// pod is one generation of a pod that is replaced.
type pod struct {
	number     int
	generation int
	volumes    []volume
	tokens     map[string]podToken // by audience
}

// volume is a volume of a pod.
type volume struct {
	number  int
	changed time.Duration // when the driver last wrote content; negative if never
	version string        // of the file
}

// podToken is a service account token of the kubelet.
type podToken struct {
	got  time.Duration
	text string
}

func (n *node) pod(number, generation int) *pod {
	p := &pod{number: number, generation: generation, tokens: map[string]podToken{}}
	for i := range n.cluster.Volumes {
		p.volumes = append(p.volumes, volume{number: number*n.cluster.Volumes + i, changed: -1})
	}
	return p
}

func (p *pod) name() string { return fmt.Sprint("pod-", p.number) }

func (p *pod) uid() string { return fmt.Sprintf("uid-%d-%d", p.number, p.generation) }

// run simulates a pod and those that replace it.
func (n *node) run(t *testing.T, number int) {
	time.Sleep(n.plan.start(number))
	p := n.pod(number, 0)
	if n.plan.age != nil {
		for _, audience := range n.audiences() {
			p.tokens[audience] = n.token(p, audience, n.now()-n.plan.age(number))
		}
	}
	replace := n.plan.lasts
	if n.plan.replace != nil {
		replace = n.plan.replace(number)
	}
	for n.now() < n.plan.lasts && n.failed.Load() == nil {
		// The kubelet mounts all volumes of a pod again at each sync.
		for i := range p.volumes {
			if !n.publish(t, p, &p.volumes[i]) {
				return
			}
		}
		next := n.now() + n.next()
		if n.now() < replace && replace <= next {
			next = replace
			p = n.pod(number, p.generation+1)
		}
		time.Sleep(next - n.now())
	}
}

// publish simulates a mount by the kubelet and the driver. It reports whether the mount
// succeeded.
func (n *node) publish(t *testing.T, p *pod, v *volume) bool {
	c, now := n.cluster, n.now()
	onNode := c.Pods * c.Volumes
	asPod := float64(v.number%onNode) < c.AsPod*float64(onNode)
	secret := fmt.Sprint("secret-", v.number)
	secrets := "null"
	if !asPod {
		// csiMountMgr.SetUpAt reads nodePublishSecretRef with a GET each time.
		n.counts.readByKubelet.add(now, 1)
		secrets = text(map[string]string{entry: string(n.secret(secret, now)[entry])})
	}
	tokens := n.tokens(p, now)
	first := v.changed < 0
	// The driver's NodePublishVolume.
	if !first && now < v.changed+c.Poll {
		return true
	}
	n.clock.set(now)
	resp, err := n.provider.Mount(t.Context(), &v1alpha1.MountRequest{
		Attributes: text(map[string]string{
			"roleName": role, "secretName": secret, "transitKey": transitKey,
			"csi.storage.k8s.io/pod.namespace": namespace, "csi.storage.k8s.io/pod.name": p.name(),
			"csi.storage.k8s.io/pod.uid": p.uid(), "csi.storage.k8s.io/serviceAccount.name": account,
			"csi.storage.k8s.io/serviceAccount.tokens": tokens,
		}),
		Secrets: secrets, TargetPath: fmt.Sprintf("/pods/%s/%d/mount", p.uid(), v.number), Permission: "420",
	})
	if err == nil &&
		(len(resp.Files) != 1 || len(resp.ObjectVersion) != 1 || string(resp.Files[0].Contents) != plaintext(v.number)) {
		err = fmt.Errorf("volume %d has the wrong files", v.number)
	}
	if err != nil {
		n.failed.CompareAndSwap(nil, &err)
		return false
	}
	if version := resp.ObjectVersion[0].Version; version != v.version {
		v.version, v.changed = version, now
	}
	// createOrUpdateSecretProviderClassPodStatus: a POST, and a PUT if the status exists,
	// also after a reboot of the node.
	n.counts.podStatus.add(now, 1)
	if !first || p.generation == 0 {
		n.counts.podStatus.add(now, 1)
	}
	return true
}

// tokens returns the tokens of the kubelet's token manager for the pod. It renews one
// after four fifths of its lifetime, less up to ten seconds.
func (n *node) tokens(p *pod, now time.Duration) string {
	all := map[string]any{}
	for _, audience := range n.audiences() {
		token, ok := p.tokens[audience]
		n.mu.Lock()
		jitter := time.Duration(n.random.IntN(10)) * time.Second
		n.mu.Unlock()
		if !ok || now > token.got+n.cluster.PodToken*4/5-jitter {
			token = n.token(p, audience, now)
			p.tokens[audience] = token
			n.counts.podTokens.add(now, 1)
		}
		all[audience] = map[string]any{"token": token.text,
			"expirationTimestamp": n.began.Add(token.got + n.cluster.PodToken)}
	}
	return text(all)
}

// token returns a token that the kubelet requested at a time. All pods have the same
// service account, which does not affect the load.
func (n *node) token(p *pod, audience string, got time.Duration) podToken {
	rest := got + n.cluster.PodToken - n.now()
	return podToken{got, n.issuer.PodToken(namespace, p.name(), p.uid(), account, audience, rest)}
}

// audiences returns "vault", "" for the API server, and others.
func (n *node) audiences() (names []string) {
	for i := range n.cluster.Audiences {
		names = append(names, []string{"vault", "", "other"}[i])
	}
	return names
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
