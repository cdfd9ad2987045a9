package main

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"
)

// tolerance of the comparison, as a share of the model's figure. The simulation differs
// because it has few volumes and a short time.
const tolerance = 0.15

// columns are the combinations of caches.
var columns = map[string]Caches{
	"no caches": {}, "tokens": {Tokens: true}, "republish": {Republish: true}, "both": {Tokens: true, Republish: true},
}

// other differs from Large in every parameter. Its pods have two volumes each and tokens
// with a short lifetime.
var other = Cluster{
	Nodes: 70, Pods: 8, Volumes: 2, AsPod: 0.25,
	Republish: Span{2 * time.Minute, 3 * time.Minute}, Poll: time.Minute, ResponseLife: Large.ResponseLife,
	TokenTTL: 10 * time.Minute, LoginLife: Large.LoginLife, Reviewed: 1, Audiences: 3, PodToken: 40 * time.Minute,
	RestartWithin: 20 * time.Minute, Rebooting: 0.5, RebootWithin: time.Minute,
	Secrets: 3000, Entries: 1, KubeQPS: 4,
}

// longTokens is a cluster whose pods have tokens that live longer than cached responses.
var longTokens = func() Cluster {
	c := Large
	c.Pods, c.Volumes, c.PodToken = 15, 2, 2*time.Hour
	return c
}()

func TestModel(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := columns[name]
			nodes := 1
			if k.Republish {
				nodes = 2 // there are fewer decrypts and logins
			}
			compare(t, Large, k, nodes)
		})
	}
	t.Run("another cluster", func(t *testing.T) {
		t.Parallel()
		compare(t, other, Caches{Tokens: true, Republish: true}, 10)
	})
	t.Run("long tokens", func(t *testing.T) {
		t.Parallel()
		m := newComparison(t, longTokens, Caches{Tokens: true, Republish: true})
		m.rotation(5)
		m.restart(5)
	})
}

// compare simulates nodes of a cluster and compares all cells of a column.
func compare(t *testing.T, c Cluster, k Caches, nodes int) {
	m := newComparison(t, c, k)
	if !k.Republish {
		m.reboot(m.withoutRepublish(nodes))
		return
	}
	steady := m.rotation(nodes)
	m.restart(nodes)
	m.reboot(steady)
	m.restartLater()
	m.rebootLater(steady)
}

// comparison compares the model with a simulation of the cluster.
type comparison struct {
	t       *testing.T
	cluster Cluster
	caches  Caches
	age     func(pod int) time.Duration
}

// newComparison returns a comparison in which the kubelet's tokens have any age when the
// simulation begins.
func newComparison(t *testing.T, c Cluster, k Caches) *comparison {
	return &comparison{t, c, k, spread(0, 1, seconds(c.renewal()))}
}

func seconds(n float64) time.Duration {
	return time.Duration(n * float64(time.Second)).Truncate(time.Second)
}

// cycle returns the longest time from one decrypt of a volume to the next. If all pods
// start evenly over it, the steady state follows.
func (m *comparison) cycle() time.Duration { return seconds(m.cluster.renewal()) }

// late returns the maximum delay of a request after the event that makes it due.
func (m *comparison) late() time.Duration { return m.cluster.Republish.Max }

// rotation compares the steady state, which it returns, a rotation, and the steady state
// after it.
func (m *comparison) rotation(nodes int) Load {
	m.t.Helper()
	c, k := m.cluster, m.caches
	rotation := 2 * m.cycle()
	finished := rotation + c.RotationTime() + m.late()
	end := rotation + 2*m.cycle()
	s := simulate(m.t, c, k, nodes, plan{
		start: c.spreadPods(m.cycle()), age: m.age, rewrap: after(rotation, c.spreadVolumes(c.RotationTime())), lasts: end,
	})
	steady := s.between(m.cycle(), rotation)
	m.all("steady state", c.Steady(k), steady)
	if c.usable()+m.late().Seconds() < c.ResponseLife.Min.Seconds() {
		m.cell("steady state", "decrypts per renewal", steady.PodTokens/float64(c.Audiences)*float64(c.Volumes),
			steady.Decrypt, 0.03)
	}
	m.kubernetes("rotation", c.Rotation(k), s.between(rotation, rotation+m.cycle()))
	m.wave("rotation", c.Rotation(k), s, rotation, finished, steady)
	m.all("after the rotation", c.Steady(k), s.between(end-m.cycle(), end))
	return steady
}

// restart compares a rolling restart.
func (m *comparison) restart(nodes int) {
	m.t.Helper()
	c, k := m.cluster, m.caches
	restart := m.cycle()
	end := restart + c.RestartWithin
	s := simulate(m.t, c, k, nodes, plan{
		start: c.spreadPods(m.cycle()), age: m.age, replace: after(restart, spread(1, 2, c.RestartWithin)), lasts: end,
	})
	m.all("restart", c.Restart(k), s.between(restart, end))
}

// restartLater compares the renewal of the tokens of pods that started in a rolling
// restart.
func (m *comparison) restartLater() {
	m.t.Helper()
	c, k := m.cluster, m.caches
	later := seconds(c.usable())
	end := later + c.LaterTime(c.RestartWithin)
	s := simulate(m.t, c, k, 2, plan{start: c.spreadPods(c.RestartWithin), lasts: end})
	m.all("restart, later", c.Later(k, 1, c.RestartWithin), s.between(later, end))
}

// reboot compares the load while nodes return: that of these nodes, and the steady state
// of the others.
func (m *comparison) reboot(steady Load) {
	m.t.Helper()
	const nodes = 5
	c := m.cluster
	s := simulate(m.t, c, m.caches, nodes, plan{start: c.boot(nodes, c.RebootWithin), lasts: c.RebootWithin})
	m.all("reboot", c.Reboot(m.caches), sum(s.between(0, c.RebootWithin), c.Rebooting, steady, 1-c.Rebooting))
}

// rebootLater compares the renewal of the tokens after a reboot.
func (m *comparison) rebootLater(steady Load) {
	m.t.Helper()
	const nodes = 5
	c, k := m.cluster, m.caches
	later := seconds(c.usable())
	end := later + c.LaterTime(c.RebootWithin)
	s := simulate(m.t, c, k, nodes, plan{start: c.boot(nodes, c.RebootWithin), lasts: end})
	m.all("reboot, later", c.Later(k, c.Rebooting, c.RebootWithin),
		sum(s.between(later, end), c.Rebooting, steady, 1-c.Rebooting))
}

// withoutRepublish compares all but the reboot without the republish cache, in one
// simulation, and returns the steady state.
func (m *comparison) withoutRepublish(nodes int) Load {
	m.t.Helper()
	c, k := m.cluster, m.caches
	warm := m.cycle() // every pod has logged in
	rotation := warm + m.cycle()
	restart := rotation + c.RotationTime() + m.late()
	end := restart + c.RestartWithin
	s := simulate(m.t, c, k, nodes, plan{
		start: c.spreadPods(m.cycle()), age: m.age, lasts: end,
		rewrap: after(rotation, c.spreadVolumes(c.RotationTime())), replace: after(restart, spread(1, 2, c.RestartWithin)),
	})
	steady := s.between(warm, rotation)
	m.all("steady state", c.Steady(k), steady)
	m.vault("rotation", c.Rotation(k), s.between(rotation, restart))
	m.kubernetes("rotation", c.Rotation(k), steady) // only the rare renewals of tokens could differ
	m.all("restart", c.Restart(k), s.between(restart, end))
	m.restartLater()
	m.rebootLater(steady)
	return steady
}

func (m *comparison) all(name string, want, got Load) {
	m.t.Helper()
	m.vault(name, want, got)
	m.kubernetes(name, want, got)
}

// wave compares the additional requests to Vault when an event invalidates cached
// responses. The last of them comes one interval after the event.
func (m *comparison) wave(name string, want Load, s *counts, from, to time.Duration, steady Load) {
	m.t.Helper()
	duration, late := (to - from - m.late()).Seconds(), m.late().Seconds()
	m.vault(name, want, sum(s.between(from, to), (duration+late)/duration, steady, -late/duration))
}

func (m *comparison) vault(name string, want, got Load) {
	m.t.Helper()
	m.cell(name, "logins", want.Login, got.Login, tolerance)
	m.cell(name, "decrypts", want.Decrypt, got.Decrypt, tolerance)
	m.cell(name, "TokenReviews", want.Review, got.Review, tolerance)
}

func (m *comparison) kubernetes(name string, want, got Load) {
	m.t.Helper()
	m.cell(name, "Secrets read as the pod", want.ReadAsPod, got.ReadAsPod, tolerance)
	m.cell(name, "Secrets read by the kubelet", want.ReadByKubelet, got.ReadByKubelet, tolerance)
	m.cell(name, "TokenRequests", want.PodTokens, got.PodTokens, tolerance)
	m.cell(name, "pod statuses", want.PodStatus, got.PodStatus, tolerance)
}

func (m *comparison) cell(name, kind string, want, got, within float64) {
	m.t.Helper()
	off := got/want - 1
	m.t.Logf("%-20s %-28s model %7.1f  simulation %7.1f  %+5.1f %%", name, kind, want, got, 100*off)
	if !(math.Abs(off) <= within) {
		m.t.Errorf("%s: %s: the model has %.1f/s, the simulation %.1f/s", name, kind, want, got)
	}
}

// TestNodesAddUp verifies that the load is proportional to the number of nodes, so that
// simulating a few is sufficient.
func TestNodesAddUp(t *testing.T) {
	t.Parallel()
	c := Large
	lasts := c.RebootWithin
	for _, nodes := range []int{1, 10, 50} {
		s := simulate(t, c, Caches{Tokens: true, Republish: true}, nodes,
			plan{start: c.boot(nodes, c.RebootWithin), lasts: lasts})
		logins, decrypts := s.login.between(0, lasts), s.decrypt.between(0, lasts)
		if logins != nodes*c.Pods || decrypts != nodes*c.Pods*c.Volumes {
			t.Errorf("%d nodes: %d logins and %d decrypts", nodes, logins, decrypts)
		}
	}
}
