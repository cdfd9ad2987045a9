package main

import (
	"math"
	"slices"
	"time"
)

// Cluster is what the load depends on.
type Cluster struct {
	Nodes   int
	Pods    int     // on a node
	Volumes int     // of a pod
	AsPod   float64 // share of the volumes whose Secret is read as the pod, and not by the kubelet

	Republish  Span          // from a mount to its repetition: the kubelet's syncFrequency, and up to half of it more
	Poll       time.Duration // the driver's rotation-poll-interval: so long after a change of content it asks no provider
	AnswerLife Span          // of an answer in the republish cache, unless the pod gets a new token before
	TokenTTL   time.Duration // of the Vault role
	LoginLife  time.Duration // for which the provider uses a Vault token at most
	Reviewed   float64       // share of the logins at a kubernetes mount, which makes a TokenReview of each

	Audiences int           // tokenRequests of the CSIDriver
	PodToken  time.Duration // life of a pod's service account token, of which the kubelet uses four fifths

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
	Nodes: 5000, Pods: 30, Volumes: 1, AsPod: 0.1,

	Republish: Span{60 * time.Second, 90 * time.Second}, Poll: 2 * time.Minute,
	AnswerLife: Span{50 * time.Minute, time.Hour},
	TokenTTL:   15 * time.Minute, LoginLife: 13 * time.Minute, Reviewed: 1,

	Audiences: 2, PodToken: time.Hour,

	RestartWithin: 30 * time.Minute, Rebooting: 0.1, RebootWithin: 2 * time.Minute,

	Secrets: 30000, Entries: 2, KubeQPS: 50,
}

// Caches are those of the provider that are on.
type Caches struct{ Tokens, Republish bool }

// Load is requests per second.
type Load struct {
	Login, Decrypt float64 // of the provider to Vault
	ReadAsPod      float64 // of the provider to the API server: the Secret
	Review         float64 // of Vault to the API server: a TokenReview
	// of the kubelet (the Secret, TokenRequests) and the driver to the API server
	ReadByKubelet, PodTokens, PodStatus float64
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

func (c Cluster) pods() float64 { return float64(c.Nodes * c.Pods) }

func (c Cluster) volumes() float64 { return c.pods() * float64(c.Volumes) }

// mounts are those of the kubelet per second while nothing happens.
func (c Cluster) mounts() float64 { return c.volumes() / c.Republish.mean() }

// due is the age at which a Vault token is not used any more. The last tenth of
// its lease is left for requests under way.
func (c Cluster) due() float64 { return min(c.TokenTTL.Seconds()*0.9, c.LoginLife.Seconds()) }

// usable is the age at which the kubelet replaces a service account token.
func (c Cluster) usable() float64 { return c.PodToken.Seconds() * 0.8 }

// renewal is the time from one service account token of a pod to the next. The
// kubelet asks for it when a mount finds the last one too old.
func (c Cluster) renewal() float64 { return c.usable() + c.Republish.wait() }

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
func (c Cluster) podTokens() float64 { return c.pods() * float64(c.Audiences) / c.renewal() }

// perToken returns the logins and the decrypts of a pod while nothing happens, from
// one of its service account tokens to the next. The first mount with a new token
// is always both.
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

// decrypts are those of a pod with a service account token that began at some time,
// until an end. Answers may end before the token does, those of each volume by
// themselves. Those of before a rewrap, if there are any, end with it.
func (c Cluster) decrypts(random func() float64, began, end float64, rewraps []float64) (all []float64) {
	end = min(end, began+c.usable())
	for volume := range c.Volumes {
		for at := began; at < end; {
			all = append(all, at)
			next := at + c.AnswerLife.Min.Seconds() + random()*(c.AnswerLife.Max-c.AnswerLife.Min).Seconds() + c.Republish.wait()
			if rewraps != nil && at < rewraps[volume] {
				next = min(next, rewraps[volume])
			}
			at = next
		}
	}
	slices.Sort(all)
	return all
}

// random returns what gives the numbers of a set, which are spread evenly.
func (c Cluster) random(set int) func() float64 {
	lives := 2 + int(c.usable()/c.AnswerLife.Min.Seconds())
	dimension, dimensions := 0, 1+c.Volumes*(1+lives)
	return func() float64 {
		dimension++
		return part(set, (dimension-1)%dimensions, dimensions)
	}
}

// relogin is the time from one login of a pod to the next while each of its mounts
// is a decrypt.
func (c Cluster) relogin() float64 { return c.due() + c.Republish.wait() }

// logins is how many of the decrypts with one service account token log in, from
// some time on.
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

// sets is of how many sets of moments a mean is taken.
const sets = 1000

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
	logins, decrypts := c.perToken(k)
	each := c.pods() / c.renewal()
	return c.load(k, logins*each, decrypts*each, c.mounts(), 0, 0, c.podTokens())
}

// skips is how many repetitions the driver skips after a start, on average; it
// holds as long as the second comes after Poll.
func (c Cluster) skips() float64 {
	r := c.Republish
	return min(max((c.Poll-r.Min).Seconds()/(r.Max-r.Min).Seconds(), 0), 1)
}

// Restart is the load while all pods are replaced. It takes less time than the
// kubelet uses a token.
func (c Cluster) Restart(k Caches) Load {
	within := c.RestartWithin.Seconds()
	pods, starts := c.pods()/within, c.volumes()/within
	mounts := c.mounts() + starts*c.Republish.early()
	skipped := starts * c.skips()
	steady := c.Steady(k)
	// On average half of the pods are old, and go on as ever.
	decrypt, login := starts+steady.Decrypt/2, pods+steady.Login/2
	if !k.Republish {
		decrypt = mounts - skipped
		for age := c.relogin(); age < within; age += c.relogin() {
			login += pods * (1 - age/within)
		}
	}
	return c.load(k, login, decrypt, mounts, skipped, starts, pods*float64(c.Audiences)+c.podTokens()/2)
}

// Reboot is the load while nodes come back. Their caches, and the kubelet's
// tokens, are empty.
func (c Cluster) Reboot(k Caches) Load {
	within := c.RebootWithin.Seconds()
	pods, starts := c.Rebooting*c.pods()/within, c.Rebooting*c.volumes()/within
	// All repetitions on the nodes that are back come within Poll, which is no
	// shorter than this takes.
	skipped := 0.0
	if spare := within - c.Republish.mean()*(1-c.Republish.early()); spare > 0 {
		skipped = starts * spare * spare / (2 * within * c.Republish.mean())
	}
	boot := c.load(k, pods, starts, starts+skipped, skipped, 0, pods*float64(c.Audiences))
	return sum(boot, 1, c.Steady(k), 1-c.Rebooting)
}

// Rotation is the load while the rotator rewraps all Secrets: each changed
// ciphertext is decrypted afresh at the next mount, with the same service account
// token as before.
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

// Later is the load while the kubelet renews the tokens of a share of the pods,
// which all started within some time. That comes again each time the tokens are
// due, and lasts for as long as the starts did and an interval of the mounts more.
func (c Cluster) Later(k Caches, share float64, within time.Duration) Load {
	lasts := c.LaterTime(within).Seconds()
	decrypt, logins := c.mounts(), 1.0
	if k.Republish {
		decrypt = c.volumes() / lasts
	} else {
		logins = 0
		for after := 0.0; after < c.usable(); after += c.relogin() {
			// Those with the new tokens, and those before with the old ones.
			logins += overlap(after, lasts, within) + overlap(after-c.renewal(), lasts, within)
		}
	}
	pods := c.pods() / lasts
	later := c.load(k, logins*pods, decrypt, c.mounts(), 0, 0, pods*float64(c.Audiences))
	return sum(later, share, c.Steady(k), 1-share)
}

// overlap is the share of the moments spread evenly over some time that come within
// lasts seconds from its beginning, when each is put off by so many.
func overlap(by, lasts float64, within time.Duration) float64 {
	return max(0, min(lasts, by+within.Seconds())-max(0, by)) / within.Seconds()
}

// LaterTime is how long that is.
func (c Cluster) LaterTime(within time.Duration) time.Duration { return within + c.Republish.Max }

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
