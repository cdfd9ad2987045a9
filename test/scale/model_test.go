package main

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"
)

// Tolerances of the comparison, as parts of the model's figure.
const (
	// tolerance is for all that follows from what the kubelet does. What is left is
	// that the volumes are few, and seen for a short time.
	tolerance = 0.1
	// randomTolerance is for what depends on the random lives of answers: on so few
	// volumes that makes up to 6 % of standard deviation.
	randomTolerance = 0.3
)

// columns are the combinations of caches. A Vault token cache has no switch: for
// a provider without one, pods show tokens that it shares nothing for.
var columns = map[string]Caches{
	"no caches": {}, "tokens": {Tokens: true}, "republish": {Republish: true}, "both": {Tokens: true, Republish: true},
}

// other is a cluster of which nothing is as in Large.
var other = Cluster{
	Nodes: 70, Volumes: 12, Accounts: 8, AsPod: 0.25,
	Republish: Span{2 * time.Minute, 3 * time.Minute}, Poll: time.Minute, AnswerLife: Large.AnswerLife,
	TokenTTL: 10 * time.Minute, Reviewed: 1, Audiences: 3, PodToken: 2 * time.Hour,
	RestartWithin: 20 * time.Minute, Rebooting: 0.5, RebootWithin: time.Minute,
	Secrets: 3000, Entries: 1, KubeQPS: 4,
}

func TestModel(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := columns[name]
			nodes := 1
			if k.Republish {
				nodes = 2 // decrypts are few then, and logins fewer
			}
			compare(t, Large, k, nodes)
		})
	}
	t.Run("another cluster", func(t *testing.T) {
		t.Parallel()
		compare(t, other, Caches{Tokens: true, Republish: true}, 4)
	})
}

// compare simulates nodes of a cluster and compares all cells of a column.
func compare(t *testing.T, c Cluster, k Caches, nodes int) {
	// The kubelet's tokens are of any age when the simulation begins.
	m := &comparison{t, c, k, c.spread(0, 1, time.Duration(float64(c.PodToken)*0.8+c.Republish.wait()*float64(time.Second)))}
	if !k.Republish {
		m.reboot(m.withoutAnswers(nodes))
		return
	}
	steady := m.rotation(nodes)
	if !k.Tokens {
		nodes = 1 // logins vary more than decrypts, and there are no others to see
	}
	m.restart(nodes)
	m.reboot(steady)
	m.rebootLater(steady)
}

// comparison is one of the model with what nodes of the cluster do.
type comparison struct {
	t       *testing.T
	cluster Cluster
	caches  Caches
	age     func(volume int) time.Duration
}

// cycle is the model's, in which a volume is decrypted once. When all have been,
// begun evenly over it, that is the steady state.
func (m *comparison) cycle() time.Duration {
	return time.Duration(m.cluster.cycle() * float64(time.Second)).Truncate(time.Second)
}

// late is by how much a request comes later at most than what makes it due.
func (m *comparison) late() time.Duration { return m.cluster.Republish.Max }

// rotation compares the steady state, which it returns, and a rotation after it.
func (m *comparison) rotation(nodes int) Load {
	m.t.Helper()
	c, k := m.cluster, m.caches
	rotation := 2 * m.cycle()
	later := rotation + c.AnswerLife.Min
	end := rotation + c.RotationTime() + c.AnswerLife.Max + m.late()
	s := simulate(m.t, c, k, nodes, plan{
		start: c.spread(0, 2, m.cycle()), age: m.age, rewrap: after(rotation, c.spread(1, 2, c.RotationTime())), lasts: end,
	})
	steady := s.between(m.cycle(), rotation)
	m.all("steady state", c.Steady(k), steady)
	m.kubernetes("rotation", c.Rotation(k), s.between(rotation, end))
	m.wave("rotation", c.Rotation(k), s, rotation, rotation+c.RotationTime()+m.late())
	m.wave("rotation, later", c.Later(k, 1, c.RotationTime()), s, later, end)
	m.isSpread("rotation, later", s, later, end)
	return steady
}

// restart compares a rolling restart.
func (m *comparison) restart(nodes int) {
	m.t.Helper()
	c, k := m.cluster, m.caches
	restart := m.cycle()
	later := restart + c.AnswerLife.Min
	end := restart + c.RestartWithin + c.AnswerLife.Max + m.late()
	s := simulate(m.t, c, k, nodes, plan{
		start: c.spread(0, 2, m.cycle()), age: m.age, replace: after(restart, c.spread(1, 2, c.RestartWithin)), lasts: end,
	})
	m.all("restart", c.Restart(k), s.between(restart, restart+c.RestartWithin))
	m.wave("restart, later", c.Later(k, 1, c.RestartWithin), s, later, end)
	m.isSpread("restart, later", s, later, end)
}

// reboot compares the load while nodes come back: that of the nodes that do, and
// of the others, of which the steady state is known.
func (m *comparison) reboot(steady Load) {
	m.t.Helper()
	const nodes = 5
	c := m.cluster
	s := simulate(m.t, c, m.caches, nodes, plan{start: c.boot(nodes, c.RebootWithin), lasts: c.RebootWithin})
	m.all("reboot", c.Reboot(m.caches), sum(s.between(0, c.RebootWithin), c.Rebooting, steady, 1-c.Rebooting))
}

// rebootLater compares what comes an hour later.
func (m *comparison) rebootLater(steady Load) {
	m.t.Helper()
	c, k := m.cluster, m.caches
	later := c.AnswerLife.Min
	end := c.RebootWithin + c.AnswerLife.Max + m.late()
	s := simulate(m.t, c, k, 1, plan{start: c.boot(1, c.RebootWithin), lasts: end})
	back := s.between(later, end)
	times := (end - later).Seconds() / (end - later - m.late()).Seconds() // see wave
	m.vault("reboot, later", c.Later(k, c.Rebooting, c.RebootWithin), sum(back, times*c.Rebooting, steady, 1-c.Rebooting), 1)
	m.isSpread("reboot, later", s, later, end)
}

// withoutAnswers compares all but the reboot without the republish cache, and
// returns the steady state. Nothing comes back an hour later, and one simulation
// is enough.
func (m *comparison) withoutAnswers(nodes int) Load {
	m.t.Helper()
	c, k := m.cluster, m.caches
	begun := m.late()
	if k.Tokens {
		begun += c.TokenTTL
	}
	warm := begun + c.Poll // until when the driver skips repetitions
	rotation := warm + 20*time.Minute
	restart := rotation + 20*time.Minute
	end := restart + c.RestartWithin
	s := simulate(m.t, c, k, nodes, plan{
		start: c.spread(0, 2, begun), age: m.age, lasts: end,
		rewrap: after(rotation, c.spread(1, 2, c.RotationTime())), replace: after(restart, c.spread(1, 2, c.RestartWithin)),
	})
	m.vault("steady state", c.Steady(k), s.between(warm, rotation), 1)
	m.vault("rotation", c.Rotation(k), s.between(rotation, restart), 1)
	m.all("restart", c.Restart(k), s.between(restart, end))
	// The kubelet renews a token rarely: this takes all of the time to see, in which
	// the load stays the same.
	steady := s.between(warm, restart)
	m.kubernetes("steady state", c.Steady(k), steady)
	m.kubernetes("rotation", c.Rotation(k), steady)
	return steady
}

func (m *comparison) all(name string, want, got Load) {
	m.t.Helper()
	m.vault(name, want, got, 1)
	m.kubernetes(name, want, got)
}

// wave compares what is asked of Vault when something makes answers invalid. The
// last request for that comes an interval after its end.
func (m *comparison) wave(name string, want Load, s *counts, from, to time.Duration) {
	m.t.Helper()
	m.vault(name, want, s.between(from, to), (to-from).Seconds()/(to-from-m.cluster.Republish.Max).Seconds())
}

func (m *comparison) vault(name string, want, got Load, times float64) {
	m.t.Helper()
	within := tolerance
	if m.caches.Republish {
		within = randomTolerance
	}
	m.cell(name, "logins", want.Login, got.Login*times, within)
	m.cell(name, "decrypts", want.Decrypt, got.Decrypt*times, within)
	m.cell(name, "TokenReviews", want.Review, got.Review*times, within)
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
		m.t.Errorf("%s: %s: the model says %.1f/s, and the simulation %.1f/s", name, kind, want, got)
	}
}

// isSpread checks that what comes back an hour later does not come together.
func (m *comparison) isSpread(name string, s *counts, from, to time.Duration) {
	m.t.Helper()
	half := (from + to) / 2
	first, second := s.decrypt.between(from, half), s.decrypt.between(half, to)
	if first < second/3 || second < first/3 {
		m.t.Errorf("%s: %d decrypts in the first half of the time and %d in the second", name, first, second)
	}
}

// TestNodesAddUp: so many nodes make so many times the requests of one, which is
// why few of them are enough.
func TestNodesAddUp(t *testing.T) {
	t.Parallel()
	c := Large
	lasts := c.RebootWithin
	for _, nodes := range []int{1, 10, 50} {
		s := simulate(t, c, Caches{Tokens: true, Republish: true}, nodes, plan{start: c.boot(nodes, c.RebootWithin), lasts: lasts})
		logins, decrypts := s.login.between(0, lasts), s.decrypt.between(0, lasts)
		if logins != nodes*c.Accounts || decrypts != nodes*c.Volumes {
			t.Errorf("%d nodes: %d logins and %d decrypts", nodes, logins, decrypts)
		}
	}
}
