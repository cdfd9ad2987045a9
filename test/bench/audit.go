package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	auditPairs = 7
	auditCalls = 150 // of each kind in a pair
)

// auditPair has the medians of login and decrypt with and without the audit headers. The
// calls alternate, so that other load on the machine affects both.
type auditPair struct {
	With    float64 `json:"withP50ms"`
	Without float64 `json:"withoutP50ms"`
}

func (p auditPair) ratio() float64 { return ratio(p.With, p.Without) }

// auditHeaders measures the cost of the audit headers without an audit device in Vault:
// to create, send and parse them.
func auditHeaders(ctx context.Context, e *environment, say func(string, ...any)) (pairs []auditPair, err error) {
	client, err := transit.NewClient(transit.Config{Address: e.vault.Address})
	if err != nil {
		return nil, err
	}
	v := e.volumes[1]
	entry := v.entries[0]
	items := []transit.Item{{Data: []byte(v.ciphertext[entry]),
		Context: ciphertext.Strict.Context(namespace, v.secret, entry)}}
	call := func(p pod, audit transit.Audit) (time.Duration, error) {
		began := time.Now()
		login := client.NewLoginSource(transit.Login{Mount: "jwt", Role: namespace,
			JWT: func() (string, error) { return p.vault, nil }})
		results, err := client.Session("", login).
			Decrypt(transit.WithAudit(ctx, audit), ciphertext.Key{Mount: "transit", Name: namespace}, items)
		took := time.Since(began)
		if err == nil {
			err = cmp.Or(results[0].Err, v.check(map[string]string{entry: string(results[0].Data)}))
		}
		return took, err
	}
	for n := range auditPairs {
		pods, err := e.newPods(ctx, 2*auditCalls, false)
		if err != nil {
			return nil, err
		}
		var with, without []time.Duration
		for i, p := range pods {
			audit, times := transit.Audit{}, &without
			if i%2 == n%2 {
				audit, times = transit.Audit{
					Namespace: namespace, Pod: p.name + "-5d9c7b6f4-x2x8p", PodUID: p.uid, ServiceAccount: p.name,
					Secret: v.secret, Class: v.secret, Node: "ip-10-0-0-1.eu-central-1.compute.internal",
					RequestID: "WTD6CLMSXK6UTOTOLNUXRCLQZB",
				}, &with
			}
			took, err := call(p, audit)
			if err != nil {
				return nil, err
			}
			*times = append(*times, took)
		}
		pair := auditPair{With: median(with), Without: median(without)}
		pairs = append(pairs, pair)
		say("audit headers, pair %d of %d: %.3f ms with, %.3f ms without", n+1, auditPairs, pair.With, pair.Without)
	}
	return pairs, nil
}

func median(times []time.Duration) float64 {
	return milliseconds(percentile(slices.Sorted(slices.Values(times)), 50))
}

// auditBudget evaluates the median pair.
func auditBudget(pairs []auditPair) budget {
	middle := middlePair(pairs, auditPair.ratio)
	return budget{
		Name: fmt.Sprintf("audit headers: login and decrypt, %d pairs", len(pairs)), Unit: "ms", Limit: 1.05,
		Measured: middle.With, Floor: middle.Without,
	}.evaluated()
}

// middlePair returns the pair with the median ratio.
func middlePair[T any](pairs []T, ratio func(T) float64) T {
	sorted := slices.SortedFunc(slices.Values(pairs), func(a, b T) int { return cmp.Compare(ratio(a), ratio(b)) })
	return sorted[len(sorted)/2]
}
