package main

import (
	"math"
	"time"
)

// Cluster is what the load depends on.
type Cluster struct {
	Nodes    int
	Volumes  int     // on a node, each of a pod of its own
	Accounts int     // service accounts on a node, over which its volumes are spread evenly
	AsPod    float64 // share of the volumes whose Secret is read as the pod, and not by the kubelet

	Republish  Span          // from a mount to its repetition: the kubelet's syncFrequency, and up to half of it more
	Poll       time.Duration // the driver's rotation-poll-interval: so long after a change of content it asks no provider
	AnswerLife Span          // of an answer in the republish cache
	TokenTTL   time.Duration // of the Vault role
	Reviewed   float64       // share of the logins at a kubernetes mount, which makes a TokenReview of each

	Audiences int           // tokenRequests of the CSIDriver
	PodToken  time.Duration // life of a pod's token, of which the kubelet uses four fifths

	RestartWithin time.Duration // in a rolling restart all pods are replaced, evenly over this time
	Rebooting     float64       // share of the nodes that reboot
	RebootWithin  time.Duration // they come back evenly over this time, each with all of its pods at once

	Secrets int     // with ciphertext, over which the volumes are spread evenly
	Entries int     // of a Secret
	KubeQPS float64 // the rotator's limit, --kube-qps
}

// Large is the cluster of docs/scale.md. What is not its size is what the
// programs do by default, and what vault-setup writes.
var Large = Cluster{
	Nodes: 5000, Volumes: 30, Accounts: 15, AsPod: 0.1,

	Republish: Span{60 * time.Second, 90 * time.Second}, Poll: 2 * time.Minute,
	AnswerLife: Span{45 * time.Minute, time.Hour},
	TokenTTL:   15 * time.Minute, Reviewed: 1,

	Audiences: 2, PodToken: time.Hour,

	RestartWithin: 30 * time.Minute, Rebooting: 0.1, RebootWithin: 2 * time.Minute,

	Secrets: 30000, Entries: 2, KubeQPS: 50,
}

// Caches are those of the provider that are on.
type Caches struct{ Tokens, Republish bool }

// Load is requests per second.
type Load struct {
	Login, Decrypt                      float64 // of the provider to Vault
	ReadAsPod                           float64 // of the provider to the API server: the Secret
	Review                              float64 // of Vault to the API server: a TokenReview
	ReadByKubelet, PodTokens, PodStatus float64 // of the kubelet (the Secret, TokenRequests) and the driver to the API server
}

// Span is a time that is any between two with the same chance.
type Span struct{ Min, Max time.Duration }

func (s Span) mean() float64 { return (s.Min + s.Max).Seconds() / 2 }

// wait is how long it takes on average from a moment that knows nothing of it
// to the end of the span that is under way: longer ones are met more often.
func (s Span) wait() float64 {
	a, b := s.Min.Seconds(), s.Max.Seconds()
	return (a*a + a*b + b*b) / 3 / (2 * s.mean())
}

// early is by how many mounts a start brings the repetitions of a volume
// forward: a mount at once, and then as if the last had been this one.
func (s Span) early() float64 { return s.wait() / s.mean() }

func (c Cluster) volumes() float64 { return float64(c.Nodes * c.Volumes) }

// mounts are those of the kubelet per second while nothing happens.
func (c Cluster) mounts() float64 { return c.volumes() / c.Republish.mean() }

// cycle is the time from one decrypt of a volume to the next with the republish
// cache: the life of the answer, and the wait for the next mount.
func (c Cluster) cycle() float64 { return c.AnswerLife.mean() + c.Republish.wait() }

// due is the age at which a Vault token is not used any more: its last tenth is
// left for requests under way.
func (c Cluster) due() float64 { return c.TokenTTL.Seconds() * 0.9 }

// accounts sums up over the accounts of the cluster what one with so many
// volumes on its node has.
func (c Cluster) accounts(of func(volumes int) float64) float64 {
	n, more := c.Volumes/c.Accounts, c.Volumes%c.Accounts
	sum := float64(c.Accounts-more) * of(n)
	if more > 0 {
		sum += float64(more) * of(n+1)
	}
	return sum * float64(c.Nodes)
}

// load is what follows from mounts and decrypts. The driver skips some of the
// kubelet's mounts; of those that reach the provider, some are the first of a new
// pod, and create its status.
func (c Cluster) load(k Caches, login, decrypt, mounts, skipped, created, podTokens float64) Load {
	l := Load{Login: login, Decrypt: decrypt}
	if !k.Tokens {
		l.Login = decrypt
	}
	l.Review = l.Login * c.Reviewed
	reached := mounts - skipped
	l.ReadAsPod, l.ReadByKubelet = reached*c.AsPod, mounts*(1-c.AsPod)
	// The driver creates the volume's status. When it is there already, that is
	// refused and the driver updates it.
	l.PodStatus = 2*reached - created
	l.PodTokens = podTokens
	return l
}

// podTokens are the kubelet's TokenRequests per second while nothing happens.
// It asks for a token when a mount finds the last one too old.
func (c Cluster) podTokens() float64 {
	return c.volumes() * float64(c.Audiences) / (c.PodToken.Seconds()*0.8 + c.Republish.wait())
}

// loginRate is how often an account with so many volumes on a node logs in, per
// second, while nothing happens.
func (c Cluster) loginRate(k Caches, volumes int) float64 {
	if !k.Republish {
		// Many mounts come in the life of a token. The next one after its end does
		// not depend on the one that it was made for.
		return 1 / (c.due() + c.Republish.mean()/float64(volumes+1))
	}
	// Decrypts of a volume are a cycle apart, and those of the others come at any
	// moments between: the rate for many sets of such moments.
	const sets, logins = 500, 20
	cycle, rate := c.cycle(), 0.0
	moments := make([]float64, volumes)
	for set := range sets {
		for i := range moments {
			moments[i] = part(set, i, volumes) * cycle
		}
		began := moments[0]
		now := began
		for range logins {
			now += c.due()
			next := math.Inf(1)
			for _, m := range moments {
				next = min(next, m+math.Ceil((now-m)/cycle)*cycle)
			}
			now = next
		}
		rate += logins / (now - began) / sets
	}
	return rate
}

// part is a number from 0 to 1. Those of all sets fill the space of so many
// dimensions evenly: they are multiples of the powers of its golden ratio.
func part(set, dimension, dimensions int) float64 {
	ratio := 2.0
	for range 30 {
		ratio = math.Pow(1+ratio, 1/float64(dimensions+1))
	}
	_, part := math.Modf(0.5 + float64(set+1)*math.Pow(ratio, -float64(dimension+1)))
	return part
}

// Steady is the load while nothing happens.
func (c Cluster) Steady(k Caches) Load {
	decrypt := c.mounts()
	if k.Republish {
		decrypt = c.volumes() / c.cycle()
	}
	login := c.accounts(func(n int) float64 { return c.loginRate(k, n) })
	return c.load(k, login, decrypt, c.mounts(), 0, 0, c.podTokens())
}

// logins is how often an account logs in while so many decrypts of it come, each
// at any moment of some time, and its token is due after a while.
func (c Cluster) logins(decrypts int, within, due float64) float64 {
	if decrypts == 0 || due >= within {
		return 0
	}
	const steps = 50
	step := (within - due) / steps
	sum := 0.0
	for i := range steps {
		// The first decrypt with the token due is now; each other one was before
		// that or is still to come.
		now := due + (float64(i)+0.5)*step
		left := within - now
		others := decrypts - 1
		chance := float64(decrypts) / within * step * math.Pow((due+left)/within, float64(others))
		more := 0.0
		if left > c.due() {
			for j := range others + 1 {
				more += binomial(others, j, left/(due+left)) * c.logins(j, left, c.due())
			}
		}
		sum += chance * (1 + more)
	}
	return sum
}

func binomial(n, k int, p float64) float64 {
	b := math.Pow(p, float64(k)) * math.Pow(1-p, float64(n-k))
	for i := range k {
		b *= float64(n-i) / float64(i+1)
	}
	return b
}

// loginsFromSteady is the same for an account that nothing had happened to
// before: its token may have been due for long. The decrypts are any number.
func (c Cluster) loginsFromSteady(volumes int, decrypts, within float64) float64 {
	k := Caches{Tokens: true, Republish: true}
	waiting := 1 - c.due()*c.loginRate(k, volumes)
	from := func(due float64) float64 {
		n, part := math.Modf(decrypts)
		return (1-part)*c.logins(int(n), within, due) + part*c.logins(int(n)+1, within, due)
	}
	const steps = 20
	sum := 0.0
	for i := range steps {
		sum += from(c.due() * (float64(i) + 0.5) / steps)
	}
	return waiting*from(0) + (1-waiting)*sum/steps
}

// skips is how many repetitions the driver skips after a start, on average; it
// holds as long as the second comes after Poll.
func (c Cluster) skips() float64 {
	r := c.Republish
	return min(max((c.Poll-r.Min).Seconds()/(r.Max-r.Min).Seconds(), 0), 1)
}

// Restart is the load while all pods are replaced. A new pod goes to a node that
// has its service account already.
func (c Cluster) Restart(k Caches) Load {
	within := c.RestartWithin.Seconds()
	starts := c.volumes() / within
	mounts := c.mounts() + starts*c.Republish.early()
	skipped := starts * c.skips()
	steady := c.Steady(k)
	decrypt, login := mounts-skipped, steady.Login
	if k.Republish {
		// Answers of old pods end as ever; on average half of the pods are old.
		decrypt = starts + steady.Decrypt/2
		login = c.accounts(func(n int) float64 {
			ended := float64(n) * within / c.cycle() / 2
			return c.loginsFromSteady(n, float64(n)+ended, within) / within
		})
	}
	return c.load(k, login, decrypt, mounts, skipped, starts, starts*float64(c.Audiences)+c.podTokens()/2)
}

// Reboot is the load while nodes come back. Their caches, and the kubelet's
// tokens, are empty.
func (c Cluster) Reboot(k Caches) Load {
	within := c.RebootWithin.Seconds()
	starts := c.Rebooting * c.volumes() / within
	// All repetitions on the nodes that are back come within Poll, which is no
	// shorter than this takes.
	skipped := 0.0
	if spare := within - c.Republish.mean()*(1-c.Republish.early()); spare > 0 {
		skipped = starts * spare * spare / (2 * within * c.Republish.mean())
	}
	boot := c.load(k, c.Rebooting*c.accounts(func(int) float64 { return 1 })/within,
		starts, starts+skipped, skipped, 0, starts*float64(c.Audiences))
	return sum(boot, 1, c.Steady(k), 1-c.Rebooting)
}

// Rotation is the load while the rotator rewraps all Secrets: each changed
// ciphertext is decrypted afresh at the next mount.
func (c Cluster) Rotation(k Caches) Load {
	l := c.Steady(k)
	if !k.Republish {
		return l
	}
	within := c.RotationTime().Seconds()
	// Other answers end as ever; on average half of the Secrets are unchanged yet.
	decrypt := c.volumes()/within + l.Decrypt/2
	login := c.accounts(func(n int) float64 {
		ended := float64(n) * within / c.cycle() / 2
		return c.loginsFromSteady(n, float64(n)+ended, within) / within
	})
	return c.load(k, login, decrypt, c.mounts(), 0, 0, c.podTokens())
}

// Later is the load on Vault when the answers end that a share of the volumes got
// within some time, an hour before. It lasts as long as that did, and the
// difference in the lives of answers.
func (c Cluster) Later(k Caches, share float64, within time.Duration) Load {
	l := c.Steady(k)
	if !k.Republish {
		return l
	}
	lasts := c.LaterTime(within).Seconds()
	// Most come in the middle: like any moments of a shorter time.
	middle := math.Hypot(within.Seconds(), lasts-within.Seconds())
	login := c.accounts(func(n int) float64 { return c.logins(n, middle, 0) / lasts })
	later := c.load(k, login, c.volumes()/lasts, c.mounts(), 0, 0, c.podTokens())
	return sum(later, share, l, 1-share)
}

// LaterTime is how long that is.
func (c Cluster) LaterTime(within time.Duration) time.Duration {
	return within + c.AnswerLife.Max - c.AnswerLife.Min
}

func sum(a Load, times float64, b Load, more float64) Load {
	f := func(x, y float64) float64 { return times*x + more*y }
	return Load{f(a.Login, b.Login), f(a.Decrypt, b.Decrypt), f(a.ReadAsPod, b.ReadAsPod), f(a.Review, b.Review),
		f(a.ReadByKubelet, b.ReadByKubelet), f(a.PodTokens, b.PodTokens), f(a.PodStatus, b.PodStatus)}
}

// Rotator is what a run of the rotator asks for altogether.
type Rotator struct{ Lists, Patches, Rewraps int }

// Limits of the rotator: Secrets of the first page and of the longest, entries of a batch, and how often it
// lists: to plan, to rewrap and to verify.
const (
	firstPage = 50
	pageSize  = 500
	batchSize = 100
	listings  = 3
)

// Rotator is what a rotation of the cluster takes. A few requests more are for
// the key, the login and the state.
func (c Cluster) Rotator() Rotator {
	perBatch := batchSize / c.Entries
	return Rotator{listings * pages(c.Secrets), c.Secrets, ceil(c.Secrets, perBatch)}
}

func ceil(a, b int) int { return (a + b - 1) / b }

// pages is how many a listing takes, as the first ones are short: the rotator finds
// out how much Secrets weigh before it asks for many.
func pages(secrets int) (n int) {
	for size := firstPage; secrets > 0; size = min(4*size, pageSize) {
		secrets -= size
		n++
	}
	return n
}

// RotationTime is how long the rotator writes.
func (c Cluster) RotationTime() time.Duration {
	return time.Duration(float64(c.Secrets) / c.KubeQPS * float64(time.Second))
}
