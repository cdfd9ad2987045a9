package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// A scenario is an event in a cluster, and its load.
type scenario struct {
	name string
	load func(Caches) Load
}

func (c Cluster) scenarios() []scenario {
	name := func(event string, duration time.Duration) string {
		return fmt.Sprintf("%s, %.0f min", event, duration.Minutes())
	}
	later := func(share float64, within time.Duration) scenario {
		after := fmt.Sprintf("  and each %.0f min later", c.renewal()/60)
		return scenario{name(after, c.LaterTime(within)), func(k Caches) Load { return c.Later(k, share, within) }}
	}
	return []scenario{
		{"steady state", c.Steady},
		{name("rolling restart of all pods", c.RestartWithin), c.Restart},
		later(1, c.RestartWithin),
		{name(fmt.Sprintf("reboot of %.0f %% of the nodes", 100*c.Rebooting), c.RebootWithin), c.Reboot},
		later(c.Rebooting, c.RebootWithin),
		{name("rotation", c.RotationTime()), c.Rotation},
	}
}

// caches are the columns of the tables.
var caches = []struct {
	name string
	Caches
}{
	{"no cache", Caches{}},
	{"token cache", Caches{Tokens: true}},
	{"republish cache", Caches{Republish: true}},
	{"both", Caches{Tokens: true, Republish: true}},
}

// Requests per second of a Vault on the two cores of the machine of
// docs/performance.md, which also runs the client.
const (
	decryptsPerVault = 1300.0
	mountsPerVault   = 390.0 // a login and a decrypt
)

// vaults returns the number of such Vaults that the load needs.
func (l Load) vaults() float64 {
	return l.Login*(1/mountsPerVault-1/decryptsPerVault) + l.Decrypt/decryptsPerVault
}

// Tables returns the tables of docs/scale.md.
func Tables(c Cluster) []string {
	return []string{c.knobTable(), c.vaultTable(), c.apiTable(), c.rotatorTable()}
}

type table struct{ strings.Builder }

func (t *table) line(format string, args ...any) {
	t.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
}

func (c Cluster) vaultTable() string {
	var t table
	t.line("%-38s %17s %17s %17s %17s", "requests to Vault per second", caches[0].name, caches[1].name, caches[2].name,
		caches[3].name)
	t.line("%-38s%s", "", strings.Repeat(fmt.Sprintf(" %8s %8s", "login", "decrypt"), len(caches)))
	for _, s := range c.scenarios() {
		row := ""
		for _, k := range caches {
			l := s.load(k.Caches)
			row += fmt.Sprintf(" %8s %8s", number(l.Login), number(l.Decrypt))
		}
		t.line("%-38s%s", s.name, row)
	}
	t.line("")
	t.line("%-38s %17s %17s %17s %17s", "Vaults of two cores that keeps busy", caches[0].name, caches[1].name,
		caches[2].name, caches[3].name)
	for _, s := range c.scenarios() {
		row := ""
		for _, k := range caches {
			row += fmt.Sprintf(" %17.2f", s.load(k.Caches).vaults())
		}
		t.line("%-38s%s", s.name, row)
	}
	return t.String()
}

func (c Cluster) apiTable() string {
	var t table
	t.line("%-38s %9s %9s %9s %9s  %s", "requests to the API server per second", "Secrets:", "Secrets:", "tokens:",
		"statuses:", "TokenReviews: Vault, with")
	t.line("%-38s %9s %9s %9s %9s %9s %7s %10s %5s", "", "kubelet", "provider", "kubelet", "driver", "no cache",
		"token", "republish", "both")
	for _, s := range c.scenarios() {
		row := ""
		for i, width := range []int{9, 7, 10, 5} {
			row += fmt.Sprintf(" %*s", width, number(s.load(caches[i].Caches).Review))
		}
		l := s.load(Caches{Tokens: true, Republish: true})
		t.line("%-38s %9s %9s %9s %9s%s", s.name, number(l.ReadByKubelet), number(l.ReadAsPod), number(l.PodTokens),
			number(l.PodStatus), row)
	}
	return t.String()
}

func (c Cluster) rotatorTable() string {
	var t table
	r := c.Rotator()
	seconds := c.RotationTime().Seconds()
	t.line("%-38s %10s %12s", "the rotator's own requests", "in all", "per second")
	t.line("%-38s %10s %12s", "Vault: rewrap", number(float64(r.Rewraps)), fmt.Sprintf("%.1f", float64(r.Rewraps)/seconds))
	t.line("%-38s %10s %12s", "API server: patch", number(float64(r.Patches)),
		fmt.Sprintf("%.1f", float64(r.Patches)/seconds))
	t.line("%-38s %10s", "API server: list", number(float64(r.Lists)))
	return t.String()
}

// knobTable has the load with both caches after a change of one parameter.
func (c Cluster) knobTable() string {
	var t table
	k := Caches{Tokens: true, Republish: true}
	t.line("%-38s %19s %19s %13s", "both caches, and", "steady state", "rotation", "API server")
	t.line("%-38s %9s %9s %9s %9s %13s", "", "login", "decrypt", "login", "decrypt", "steady state")
	for _, knob := range []struct {
		name   string
		change func(*Cluster)
	}{
		{"nothing else", func(*Cluster) {}},
		{"half as many pods, of two volumes each", func(c *Cluster) { c.Pods, c.Volumes = c.Pods/2, 2 }},
		{"pods' tokens for 2 h", func(c *Cluster) { c.PodToken = 2 * time.Hour }},
		{"pods' tokens for 10 min", func(c *Cluster) { c.PodToken = 10 * time.Minute }},
		{"a jwt auth mount", func(c *Cluster) { c.Reviewed = 0 }},
		{"the rotator's --kube-qps=20", func(c *Cluster) { c.KubeQPS = 20 }},
		{"the rotator's --kube-qps=200", func(c *Cluster) { c.KubeQPS = 200 }},
		{"the kubelet's syncFrequency: 5m", func(c *Cluster) {
			c.Republish = Span{5 * time.Minute, 7*time.Minute + 30*time.Second}
		}},
	} {
		changed := c
		knob.change(&changed)
		steady, rotation := changed.Steady(k), changed.Rotation(k)
		t.line("%-38s %9s %9s %9s %9s %13s", knob.name, number(steady.Login), number(steady.Decrypt),
			number(rotation.Login), number(rotation.Decrypt), number(steady.api()))
	}
	return t.String()
}

// api is the load on the API server.
func (l Load) api() float64 {
	return l.ReadAsPod + l.Review + l.ReadByKubelet + l.PodTokens + l.PodStatus
}

// number formats a number with a comma for the thousands.
func number(x float64) string {
	n := int(math.Round(x))
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
