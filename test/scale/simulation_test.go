package main

import (
	"encoding/base64"
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
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	namespace  = "demo"
	role       = "app"
	transitKey = "app"
	entry      = "password"
)

// plan says what happens in a simulation to which volume and when. Volumes are
// numbered through the nodes.
type plan struct {
	start   func(volume int) time.Duration // of its pod, or of watching it
	age     func(volume int) time.Duration // of the kubelet's tokens at the start; none yet if nil
	replace func(volume int) time.Duration // its pod by another; never if nil
	rewrap  func(volume int) time.Duration // its Secret; never if nil
	lasts   time.Duration
}

// spread returns moments evenly over a time, for the volumes of a cluster, of one
// of so many sequences. Random ones would do too, but take many more volumes to be
// as even. Sequences have nothing to do with each other, nor have the volumes of
// an account.
func (c Cluster) spread(sequence, of int, over time.Duration) func(int) time.Duration {
	ranks := ceil(c.Volumes, c.Accounts)
	return func(volume int) time.Duration {
		node, slot := volume/c.Volumes, volume%c.Volumes
		account, rank := node*c.Accounts+slot%c.Accounts, slot/c.Accounts
		return time.Duration(part(account, sequence*ranks+rank, of*ranks) * float64(over))
	}
}

// boot returns the moments at which nodes come back evenly over a time, each with
// all of its volumes at once.
func (c Cluster) boot(nodes int, over time.Duration) func(int) time.Duration {
	return func(volume int) time.Duration {
		return time.Duration((float64(volume/c.Volumes) + 0.5) / float64(nodes) * float64(over))
	}
}

func after(d time.Duration, f func(int) time.Duration) func(int) time.Duration {
	return func(volume int) time.Duration { return d + f(volume) }
}

// simulate runs nodes with a real Provider each, in synthetic time.
func simulate(t *testing.T, c Cluster, k Caches, nodes int, p plan) *counts {
	t.Helper()
	s := &simulation{cluster: c, caches: k, plan: p}
	s.counts.times = float64(c.Nodes) / float64(nodes)
	s.vault = newFakeVault(t, c.TokenTTL, &s.clock, &s.counts)
	s.api = newFakeAPI(t, &s.clock, &s.counts, s.secret)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var wait sync.WaitGroup
		for i := range nodes {
			n := s.node(t, i, began)
			for j := range c.Volumes {
				wait.Go(func() { n.run(t, i*c.Volumes+j) })
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
	kube, err := provider.NewKubernetes(&rest.Config{Host: s.api.URL, Transport: &http.Transport{}})
	if err != nil {
		t.Fatal(err)
	}
	config := provider.Config{
		Vault: transit.Config{Address: s.vault.URL}, Audience: provider.DefaultAudience, VersionKey: make([]byte, 32),
		Kubernetes: kube, Log: slog.New(slog.DiscardHandler),
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

// pod is one of a volume's pods.
type pod struct {
	volume     int
	generation int
	changed    time.Duration            // when the driver last wrote content
	tokens     map[string]time.Duration // when the kubelet got each
	version    string                   // of the file
}

// run is the life of a volume.
func (n *node) run(t *testing.T, volume int) {
	time.Sleep(n.plan.start(volume))
	p := &pod{volume: volume, changed: -1, tokens: map[string]time.Duration{}}
	if n.plan.age != nil {
		for _, audience := range n.audiences() {
			p.tokens[audience] = n.now() - n.plan.age(volume)
		}
	}
	replace := n.plan.lasts
	if n.plan.replace != nil {
		replace = n.plan.replace(volume)
	}
	for n.now() < n.plan.lasts && n.failed.Load() == nil {
		if !n.publish(t, p) {
			return
		}
		next := n.now() + n.next()
		if n.now() < replace && replace <= next {
			next = replace
			p = &pod{volume: volume, generation: p.generation + 1, changed: -1, tokens: map[string]time.Duration{}}
		}
		time.Sleep(next - n.now())
	}
}

// publish is what the kubelet and the driver do of a mount, the first one or
// another. It reports whether it went well.
func (n *node) publish(t *testing.T, p *pod) bool {
	c, now := n.cluster, n.now()
	asPod := float64(p.volume%c.Volumes) < c.AsPod*float64(c.Volumes)
	name := fmt.Sprint("secret-", p.volume)
	secrets := "null"
	if !asPod {
		// csiMountMgr.SetUpAt reads nodePublishSecretRef with a GET each time.
		n.counts.readByKubelet.add(now, 1)
		secrets = text(map[string]string{entry: string(n.secret(name, now)[entry])})
	}
	tokens := n.tokens(p, now)
	first := p.changed < 0
	// The driver's NodePublishVolume.
	if !first && now < p.changed+c.Poll {
		return true
	}
	n.clock.set(now)
	uid := fmt.Sprintf("uid-%d-%d", p.volume, p.generation)
	resp, err := n.provider.Mount(t.Context(), &v1alpha1.MountRequest{
		Attributes: text(map[string]string{
			"roleName": role, "secretName": name, "transitKey": transitKey,
			"csi.storage.k8s.io/pod.namespace": namespace, "csi.storage.k8s.io/pod.name": name,
			"csi.storage.k8s.io/pod.uid": uid, "csi.storage.k8s.io/serviceAccount.name": n.account(p.volume),
			"csi.storage.k8s.io/serviceAccount.tokens": tokens,
		}),
		Secrets: secrets, TargetPath: "/pods/" + uid + "/mount", Permission: "420",
	})
	if err == nil && (len(resp.Files) != 1 || len(resp.ObjectVersion) != 1 || string(resp.Files[0].Contents) != plaintext(p.volume)) {
		err = fmt.Errorf("the files of volume %d are others", p.volume)
	}
	if err != nil {
		n.failed.CompareAndSwap(nil, &err)
		return false
	}
	if version := resp.ObjectVersion[0].Version; version != p.version {
		p.version, p.changed = version, now
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
	account := n.account(p.volume)
	claims := map[string]any{"name": account}
	if n.caches.Tokens {
		claims["uid"] = "uid-" + account
	} // A token that does not say whose it is shares no Vault token: that cache has no switch.
	jwt := "e30." + base64.RawURLEncoding.EncodeToString([]byte(text(map[string]any{
		"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": claims},
	}))) + ".e30"
	all := map[string]any{}
	for _, audience := range n.audiences() {
		got, ok := p.tokens[audience]
		n.mu.Lock()
		jitter := time.Duration(n.random.IntN(10)) * time.Second
		n.mu.Unlock()
		if !ok || now > got+n.cluster.PodToken*4/5-jitter {
			got = now
			p.tokens[audience] = got
			n.counts.podTokens.add(now, 1)
		}
		all[audience] = map[string]any{"token": jwt, "expirationTimestamp": n.began.Add(got + n.cluster.PodToken)}
	}
	return text(all)
}

// audiences are "vault", "" for the API server, and what else there is.
func (n *node) audiences() (names []string) {
	for i := range n.cluster.Audiences {
		names = append(names, []string{"vault", "", "other"}[i])
	}
	return names
}

// account is the service account of a volume's pods: the volumes of the node
// take turns.
func (n *node) account(volume int) string {
	return fmt.Sprintf("account-%d", volume%n.cluster.Volumes%n.cluster.Accounts)
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
