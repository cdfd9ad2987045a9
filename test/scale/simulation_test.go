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

// plan is what happens to each pod or volume in a simulation, and when. Both are
// numbered through the nodes.
type plan struct {
	start   func(pod int) time.Duration    // when it starts, or is first looked at
	age     func(pod int) time.Duration    // of the kubelet's tokens at the start; none yet if nil
	replace func(pod int) time.Duration    // by another; never if nil
	rewrap  func(volume int) time.Duration // its Secret; never if nil
	lasts   time.Duration
}

// spread returns moments evenly over a time, of one of so many sequences. Random
// ones would do too, but take many more pods to be as even. Sequences have nothing
// to do with each other.
func spread(sequence, of int, over time.Duration) func(int) time.Duration {
	return func(i int) time.Duration { return time.Duration(part(i, sequence, of) * float64(over)) }
}

// spreadVolumes is the same for volumes, those of a pod by themselves. It leaves
// sequence 0 of [Cluster.spreadPods] for the pods.
func (c Cluster) spreadVolumes(over time.Duration) func(int) time.Duration {
	return func(volume int) time.Duration {
		return spread(1+volume%c.Volumes, 1+c.Volumes, over)(volume / c.Volumes)
	}
}

func (c Cluster) spreadPods(over time.Duration) func(int) time.Duration {
	return spread(0, 1+c.Volumes, over)
}

// boot returns the moments at which nodes come back evenly over a time, each with
// all of its pods at once.
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
		// The cache of Vault tokens has no switch. These do not live until the next mount.
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
	if n := s.vault.refused.Load() + s.api.refused.Load(); n > 0 {
		t.Errorf("%d requests were refused", n)
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
	failed  atomic.Pointer[error] // the first time, which is enough
}

func plaintext(volume int) string { return fmt.Sprintf("the password of volume %d", volume) }

// secret is the data of a volume's Secret at some time; nil if there is none of
// that name.
func (s *simulation) secret(name string, at time.Duration) map[string][]byte {
	var volume int
	if _, err := fmt.Sscanf(name, "secret-%d", &volume); err != nil {
		return nil
	}
	version := 1
	if s.plan.rewrap != nil && at >= s.plan.rewrap(volume) {
		version = 2
	}
	return map[string][]byte{entry: seal(version, plaintext(volume))}
}

// node is a kubelet and a driver, played by the rules that docs/scale.md names,
// and a real provider.
type node struct {
	*simulation
	provider *provider.Provider
	began    time.Time

	mu     sync.Mutex
	random *rand.Rand
}

func (s *simulation) node(t *testing.T, index int, began time.Time) *node {
	// A transport of its own: without TLS client-go takes http.DefaultTransport, and
	// what a bubble leaves in that, closing a server outside of it trips over.
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

// next is when the kubelet repeats a mount.
func (n *node) next() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.cluster.Republish
	return r.Min + time.Duration(n.random.Int64N(int64(r.Max-r.Min)))
}

// pod is one of those that follow each other.
type pod struct {
	number     int
	generation int
	volumes    []volume
	tokens     map[string]podToken // by audience
}

// volume is one of a pod.
type volume struct {
	number  int
	changed time.Duration // when the driver last wrote content; negative: never
	version string        // of the file
}

// podToken is what the kubelet has of a service account token.
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

// run is the life of a pod and of those that follow.
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
		// What happens to a pod makes the kubelet mount all of its volumes again.
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

// publish is what the kubelet and the driver do of a mount, the first one or
// another. It reports whether it went well.
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
		err = fmt.Errorf("the files of volume %d are others", v.number)
	}
	if err != nil {
		n.failed.CompareAndSwap(nil, &err)
		return false
	}
	if version := resp.ObjectVersion[0].Version; version != v.version {
		v.version, v.changed = version, now
	}
	// createOrUpdateSecretProviderClassPodStatus: a POST, and a PUT if the status
	// was there, as it is on a node that has rebooted too.
	n.counts.podStatus.add(now, 1)
	if !first || p.generation == 0 {
		n.counts.podStatus.add(now, 1)
	}
	return true
}

// tokens are what the kubelet's token manager has for the pod: it renews one
// after four fifths of its life less up to ten seconds.
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

// token is one that the kubelet got at some time. All pods have the same service
// account, which is not to make a difference.
func (n *node) token(p *pod, audience string, got time.Duration) podToken {
	left := got + n.cluster.PodToken - n.now()
	return podToken{got, n.issuer.PodToken(namespace, p.name(), p.uid(), account, audience, left)}
}

// audiences are "vault", "" for the API server, and what else there is.
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
