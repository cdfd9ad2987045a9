package main

import (
	"math"
	"slices"
	"time"
)

// Cluster has the parameters of the load.
type Cluster struct {
	Nodes   int
	Pods    int     // on a node
	Volumes int     // of a pod
	AsPod   float64 // share of the volumes whose Secret is read as the pod, not by the kubelet

	Republish    Span          // interval of repeated mounts: the kubelet's syncFrequency, and up to half of it more
	Poll         time.Duration // the driver's rotation-poll-interval: time without calls of a provider after a change
	ResponseLife Span          // of a response in the republish cache, unless the pod gets a new token earlier
	TokenTTL     time.Duration // of the Vault role
	LoginLife    time.Duration // maximum time for which the provider uses a Vault token
	Reviewed     float64       // share of the logins at a kubernetes mount, which creates a TokenReview for each

	Audiences int           // tokenRequests of the CSIDriver
	PodToken  time.Duration // lifetime of a pod's service account token; the kubelet renews it after four fifths

	RestartWithin time.Duration // in a rolling restart all pods are replaced, evenly over this time
	Rebooting     float64       // share of the nodes that reboot
	RebootWithin  time.Duration // they return evenly over this time, each with all of its pods at once

	Secrets int     // ciphertext Secrets, each with the same number of volumes
	Entries int     // of a Secret
	KubeQPS float64 // the rotator's limit, --kube-qps
}

// Large is the cluster of docs/scale.md. All but its size are defaults of the programs
// and of vault-setup.
var Large = Cluster{
	Nodes: 5000, Pods: 30, Volumes: 1, AsPod: 0.1,

	Republish: Span{60 * time.Second, 90 * time.Second}, Poll: 2 * time.Minute,
	ResponseLife: Span{50 * time.Minute, time.Hour},
	TokenTTL:     15 * time.Minute, LoginLife: 13 * time.Minute, Reviewed: 1,

	Audiences: 2, PodToken: time.Hour,

	RestartWithin: 30 * time.Minute, Rebooting: 0.1, RebootWithin: 2 * time.Minute,

	Secrets: 30000, Entries: 2, KubeQPS: 50,
}

// Caches are the enabled caches of the provider.
type Caches struct{ Tokens, Republish bool }

// Load is requests per second.
type Load struct {
	Login, Decrypt float64 // of the provider to Vault
	ReadAsPod      float64 // of the provider to the API server: the Secret
	Review         float64 // of Vault to the API server: a TokenReview
	// of the kubelet (the Secret, TokenRequests) and the driver to the API server
	ReadByKubelet, PodTokens, PodStatus float64
}

// Span is a duration with a uniform distribution.
type Span struct{ Min, Max time.Duration }

func (s Span) mean() float64 { return (s.Min + s.Max).Seconds() / 2 }

// wait returns the mean time from a random moment to the end of the current span: a
// random moment is more often in a longer span.
func (s Span) wait() float64 {
	a, b := s.Min.Seconds(), s.Max.Seconds()
	return (a*a + a*b + b*b) / 3 / (2 * s.mean())
}

// early returns how many mounts earlier a start makes the repetitions of a volume: it
// mounts at once, and the interval restarts.
func (s Span) early() float64 { return s.wait() / s.mean() }

func (c Cluster) pods() float64 { return float64(c.Nodes * c.Pods) }

func (c Cluster) volumes() float64 { return c.pods() * float64(c.Volumes) }

// mounts returns the mounts of the kubelet per second in the steady state.
func (c Cluster) mounts() float64 { return c.volumes() / c.Republish.mean() }

// due returns the age in seconds after which a Vault token is not used. The last tenth
// of its lease is for requests in progress.
func (c Cluster) due() float64 { return min(c.TokenTTL.Seconds()*0.9, c.LoginLife.Seconds()) }

// usable returns the age in seconds at which the kubelet renews a service account token.
func (c Cluster) usable() float64 { return c.PodToken.Seconds() * 0.8 }

// renewal returns the time in seconds from one service account token of a pod to the
// next. The kubelet requests it at the first mount after the old one is due.
func (c Cluster) renewal() float64 { return c.usable() + c.Republish.wait() }

// load returns the load of mounts and decrypts. The driver skips some of the kubelet's
// mounts. Some of those that reach the provider are the first of a new pod, and create
// its status.
func (c Cluster) load(k Caches, login, decrypt, mounts, skipped, created, podTokens float64) Load {
	l := Load{Login: login, Decrypt: decrypt}
	if !k.Tokens {
		l.Login = decrypt
	}
	l.Review = l.Login * c.Reviewed
	reached := mounts - skipped
	l.ReadAsPod, l.ReadByKubelet = reached*c.AsPod, mounts*(1-c.AsPod)
	// The driver creates the volume's status. If it exists, that fails, and the driver
	// updates it.
	l.PodStatus = 2*reached - created
	l.PodTokens = podTokens
	return l
}

// podTokens returns the kubelet's TokenRequests per second in the steady state.
func (c Cluster) podTokens() float64 { return c.pods() * float64(c.Audiences) / c.renewal() }

// perToken returns the logins and decrypts of a pod in the steady state, from one of its
// service account tokens to the next. The first mount with a new token needs both.
func (c Cluster) perToken(k Caches) (logins, decrypts float64) {
	if !k.Republish {
		return 1 + math.Floor(c.usable()/c.relogin()), float64(c.Volumes) * c.renewal() / c.Republish.mean()
	}
	for set := range sets {
		all := c.decrypts(c.random(set), 0, c.usable(), nil)
		logins += c.logins(all, 0) / sets
		decrypts += float64(len(all)) / sets
	}
	return logins, decrypts
}

// decrypts returns the times of a pod's decrypts with a service account token, from its
// beginning to an end. A cached response of a volume may expire before the token. A
// rewrap of the volume's Secret, if any, ends it too.
func (c Cluster) decrypts(random func() float64, began, end float64, rewraps []float64) (all []float64) {
	end = min(end, began+c.usable())
	for volume := range c.Volumes {
		for at := began; at < end; {
			all = append(all, at)
			next := at + c.ResponseLife.Min.Seconds() + random()*(c.ResponseLife.Max-c.ResponseLife.Min).Seconds() +
				c.Republish.wait()
			if rewraps != nil && at < rewraps[volume] {
				next = min(next, rewraps[volume])
			}
			at = next
		}
	}
	slices.Sort(all)
	return all
}

// random returns a generator of the numbers of a set, which have an even distribution.
func (c Cluster) random(set int) func() float64 {
	lives := 2 + int(c.usable()/c.ResponseLife.Min.Seconds())
	dimension, dimensions := 0, 1+c.Volumes*(1+lives)
	return func() float64 {
		dimension++
		return part(set, (dimension-1)%dimensions, dimensions)
	}
}

// relogin returns the time from one login of a pod to the next if each of its mounts
// decrypts.
func (c Cluster) relogin() float64 { return c.due() + c.Republish.wait() }

// logins returns how many of the decrypts with one service account token need a login,
// starting at a time.
func (c Cluster) logins(decrypts []float64, from float64) (n float64) {
	last := math.Inf(-1)
	for _, at := range decrypts {
		if at-last < c.due() {
			continue
		}
		if last = at; at >= from {
			n++
		}
	}
	return n
}

// sets is the number of sets over which a mean is taken.
const sets = 1000

// part returns a number from 0 to 1. The numbers of all sets fill the space of the
// dimensions evenly: they are multiples of the powers of its golden ratio.
func part(set, dimension, dimensions int) float64 {
	ratio := 2.0
	for range 30 {
		ratio = math.Pow(1+ratio, 1/float64(dimensions+1))
	}
	_, part := math.Modf(0.5 + float64(set+1)*math.Pow(ratio, -float64(dimension+1)))
	return part
}

// Steady returns the load of the steady state.
func (c Cluster) Steady(k Caches) Load {
	logins, decrypts := c.perToken(k)
	each := c.pods() / c.renewal()
	return c.load(k, logins*each, decrypts*each, c.mounts(), 0, 0, c.podTokens())
}

// skips returns the mean number of repetitions that the driver skips after a start. It
// holds if the second one comes after Poll.
func (c Cluster) skips() float64 {
	r := c.Republish
	return min(max((c.Poll-r.Min).Seconds()/(r.Max-r.Min).Seconds(), 0), 1)
}

// Restart returns the load while all pods are replaced, in less time than the kubelet
// uses a token.
func (c Cluster) Restart(k Caches) Load {
	within := c.RestartWithin.Seconds()
	pods, starts := c.pods()/within, c.volumes()/within
	mounts := c.mounts() + starts*c.Republish.early()
	skipped := starts * c.skips()
	steady := c.Steady(k)
	// On average half of the pods are old, and in the steady state.
	decrypt, login := starts+steady.Decrypt/2, pods+steady.Login/2
	if !k.Republish {
		decrypt = mounts - skipped
		for age := c.relogin(); age < within; age += c.relogin() {
			login += pods * (1 - age/within)
		}
	}
	return c.load(k, login, decrypt, mounts, skipped, starts, pods*float64(c.Audiences)+c.podTokens()/2)
}

// Reboot returns the load while nodes return. Their caches are empty, and the kubelet
// has no tokens.
func (c Cluster) Reboot(k Caches) Load {
	within := c.RebootWithin.Seconds()
	pods, starts := c.Rebooting*c.pods()/within, c.Rebooting*c.volumes()/within
	// The driver skips all repetitions, because the reboot takes no longer than Poll.
	skipped := 0.0
	if spare := within - c.Republish.mean()*(1-c.Republish.early()); spare > 0 {
		skipped = starts * spare * spare / (2 * within * c.Republish.mean())
	}
	boot := c.load(k, pods, starts, starts+skipped, skipped, 0, pods*float64(c.Audiences))
	return sum(boot, 1, c.Steady(k), 1-c.Rebooting)
}

// Rotation returns the load while the rotator rewraps all Secrets. The next mount decrypts
// each changed ciphertext, with the same service account token.
func (c Cluster) Rotation(k Caches) Load {
	l := c.Steady(k)
	if !k.Republish {
		return l
	}
	within := c.RotationTime().Seconds()
	login, decrypt := 0.0, 0.0
	for set := range sets {
		random := c.random(set)
		began := (random() - 1) * c.renewal()
		rewraps := make([]float64, c.Volumes)
		for i := range rewraps {
			rewraps[i] = random() * within
		}
		for ; began < within; began += c.renewal() {
			all := c.decrypts(random, began, within, rewraps)
			login += c.logins(all, 0)
			for _, at := range all {
				if at >= 0 {
					decrypt++
				}
			}
		}
	}
	each := c.pods() / within / sets
	return c.load(k, login*each, decrypt*each, c.mounts(), 0, 0, c.podTokens())
}

// Later returns the load while the kubelet renews the tokens of a share of the pods, which
// all started within a time. This repeats each time the tokens are due, and takes
// [Cluster.LaterTime].
func (c Cluster) Later(k Caches, share float64, within time.Duration) Load {
	duration := c.LaterTime(within).Seconds()
	decrypt, logins := c.mounts(), 1.0
	if k.Republish {
		decrypt = c.volumes() / duration
	} else {
		logins = 0
		for after := 0.0; after < c.usable(); after += c.relogin() {
			// With the new tokens, and before with the old ones.
			logins += overlap(after, duration, within) + overlap(after-c.renewal(), duration, within)
		}
	}
	pods := c.pods() / duration
	later := c.load(k, logins*pods, decrypt, c.mounts(), 0, 0, pods*float64(c.Audiences))
	return sum(later, share, c.Steady(k), 1-share)
}

// overlap returns the share of moments that are in the first seconds of a duration. The
// moments have an even distribution over a time, and a delay.
func overlap(delay, duration float64, within time.Duration) float64 {
	return max(0, min(duration, delay+within.Seconds())-max(0, delay)) / within.Seconds()
}

// LaterTime returns how long the kubelet renews tokens of pods that started within a time:
// the same time, and one interval of the mounts.
func (c Cluster) LaterTime(within time.Duration) time.Duration { return within + c.Republish.Max }

func sum(a Load, times float64, b Load, more float64) Load {
	f := func(x, y float64) float64 { return times*x + more*y }
	return Load{f(a.Login, b.Login), f(a.Decrypt, b.Decrypt), f(a.ReadAsPod, b.ReadAsPod), f(a.Review, b.Review),
		f(a.ReadByKubelet, b.ReadByKubelet), f(a.PodTokens, b.PodTokens), f(a.PodStatus, b.PodStatus)}
}

// Rotator has the number of requests of a run of the rotator.
type Rotator struct{ Lists, Patches, Rewraps int }

// Limits of the rotator: Secrets of the first and of the longest page, entries of a batch,
// the listings of a run, to plan, to rewrap and to recount, and the requests for a batch, to
// rewrap it and to verify the results.
const (
	firstPage = 50
	pageSize  = 500
	batchSize = 100
	listings  = 3
	perBatch  = 2
)

// Rotator returns the requests of a rotation of the cluster, without the few for the key,
// the login and the state.
func (c Cluster) Rotator() Rotator {
	return Rotator{listings * pages(c.Secrets), c.Secrets, perBatch * ceil(c.Secrets, batchSize/c.Entries)}
}

func ceil(a, b int) int { return (a + b - 1) / b }

// pages returns the number of pages of a listing. The first ones are short, because the
// rotator does not know the size of the Secrets yet.
func pages(secrets int) (n int) {
	for size := firstPage; secrets > 0; size = min(4*size, pageSize) {
		secrets -= size
		n++
	}
	return n
}

// RotationTime returns the time that the writes of the rotator take.
func (c Cluster) RotationTime() time.Duration {
	return time.Duration(float64(c.Secrets) / c.KubeQPS * float64(time.Second))
}
