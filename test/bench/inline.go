package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// inlineMethod is a way to log in and decrypt with OpenBao, with the bare client and the provider that use it.
type inlineMethod struct {
	name     string
	floor    *floor
	provider *provider
}

// inlineRow is the measurement of one method with the bare client, or of mounts with the provider.
type inlineRow struct {
	Method string `json:"method"`
	row
}

const (
	methodTwo    = "login, then decrypt"
	methodInline = "inline"
)

// inlineAuth measures inline authentication alongside a login and a decrypt, both with the same OpenBao. Rounds of the
// methods and kinds alternate. No audit device is enabled, and no token is stored: the role has batch tokens.
func inlineAuth(ctx context.Context, e *environment, dir string, o options,
	say func(string, ...any)) (rows []inlineRow, err error) {
	say("starting an OpenBao")
	bao, err := e.onOpenBao(ctx)
	if bao != nil {
		defer bao.vault.Stop()
	}
	if err != nil {
		return nil, err
	}
	methods := []*inlineMethod{{name: methodTwo}, {name: methodInline}}
	for _, m := range methods {
		var flags []string
		if m.name == methodInline {
			flags = []string{"--vault-inline-auth=jwt"}
		}
		if m.floor, err = newFloor(bao); err != nil {
			return nil, err
		}
		defer m.floor.close()
		m.floor.inline = m.name == methodInline
		if m.provider, err = startProvider(ctx, dir, "openbao-"+fmt.Sprint(m.floor.inline), bao.vault.Address,
			e.api.Kubeconfig, flags...); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(m.provider.explain(err), m.provider.stop()) }()
	}
	return inlineRounds(ctx, bao, methods, o.rounds, say)
}

// inlineRounds makes the rounds, after one that warms up connections and caches.
func inlineRounds(ctx context.Context, bao *environment, methods []*inlineMethod, rounds int,
	say func(string, ...any)) (rows []inlineRow, err error) {
	type measured struct {
		*inlineMethod
		*cell
	}
	var all []measured
	for _, entries := range entryCounts {
		for _, parallel := range parallels {
			for _, kind := range []string{kindFloor, kindCold} {
				for _, m := range methods {
					all = append(all, measured{m, &cell{From: fromKubelet, Entries: entries, Parallel: parallel, Kind: kind}})
				}
			}
		}
	}
	for round := range rounds + 1 {
		say("inline authentication, round %d of %d", round, rounds)
		for i := range all {
			// The methods change places in every other round.
			m := all[i^(round%2)]
			s, err := m.round(ctx, bao, m.floor, m.provider, coldCalls(m.From, m.Parallel))
			if err != nil {
				return nil, fmt.Errorf("%s, %s, %d entries, %d concurrent: %w", m.name, m.Kind, m.Entries, m.Parallel, err)
			}
			if round > 0 {
				m.add(s)
			}
		}
	}
	for _, m := range all {
		rows = append(rows, inlineRow{m.name, m.row()})
	}
	return rows, nil
}

// onOpenBao returns an environment with the same API server and an OpenBao.
func (e *environment) onOpenBao(ctx context.Context) (bao *environment, err error) {
	bao = &environment{api: e.api, admin: e.admin, volumes: map[int]*volume{}}
	if bao.vault, err = testenv.StartVault(ctx, testenv.VaultOptions{OpenBao: true}); err != nil {
		return nil, err
	}
	if err := bao.prepareVault(ctx); err != nil {
		return bao, err
	}
	for _, n := range entryCounts {
		if bao.volumes[n], err = bao.encrypt(ctx, n); err != nil {
			return bao, err
		}
	}
	return bao, nil
}

// inlineTable prints each method with its ratio to a login and a decrypt of the same kind.
func inlineTable(rows []inlineRow, say func(string, ...any)) {
	if len(rows) == 0 {
		return
	}
	say("\n%-20s %7s %7s  %-6s %7s %8s %8s %8s %7s %7s", "with OpenBao", "entries", "at once", "", "per s", "p50 ms",
		"p95 ms", "CPU ms", "count", "× p50")
	var two float64 // of the row before
	for _, r := range rows {
		cpu, share := "", ""
		if r.Kind != kindFloor {
			cpu = fmt.Sprintf("%.2f", r.CPU)
		}
		if r.Method == methodTwo {
			two = r.P50
		} else {
			share = fmt.Sprintf("%.2f", ratio(r.P50, two))
		}
		say("%-20s %7d %7d  %-6s %7.0f %8.2f %8.2f %8s %7d %7s", r.Method, r.Entries, r.Parallel, r.Kind, r.Rate, r.P50,
			r.P95, cpu, r.Count, share)
	}
}
