package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// anatomy is where the time of a cold mount goes: one entry, from the kubelet, one
// mount at a time. Means in milliseconds, so that parts add up.
type anatomy struct {
	// Floor is that of the bare client, in the same round.
	Floor float64 `json:"floorMs"`
	// Whole is what the driver waits for.
	Whole float64 `json:"wholeMs"`
	// Call is what the driver waits for before and after the provider works: gRPC,
	// the switch to the other process and back.
	Call    float64 `json:"callMs"`
	Login   float64 `json:"loginMs"`
	Decrypt float64 `json:"decryptMs"`
	// Own is what the provider does beside waiting for Vault.
	Own float64 `json:"ownMs"`
}

// dissect mounts for new pods, and asks the provider's metrics how long it took.
func dissect(ctx context.Context, e *environment, f *floor, p *provider) (a anatomy, err error) {
	mean := func(kind string) (float64, error) {
		c := &cell{From: fromKubelet, Entries: 1, Parallel: 1, Kind: kind}
		s, err := c.round(ctx, e, f, p, coldCalls(fromKubelet, 1))
		if err != nil {
			return 0, err
		}
		return milliseconds(s.wall) / float64(len(s.latencies)), nil
	}
	if a.Floor, err = mean(kindFloor); err != nil {
		return a, err
	}
	before, err := p.scrape(ctx)
	if err != nil {
		return a, err
	}
	if a.Whole, err = mean(kindCold); err != nil {
		return a, err
	}
	after, err := p.scrape(ctx)
	if err != nil {
		return a, err
	}
	took := func(metric, label, value string) (float64, error) {
		sumBefore, countBefore := histogram(before, metric, label, value)
		sum, count := histogram(after, metric, label, value)
		if count == countBefore {
			return 0, fmt.Errorf("metric %s{%s=%q} of the provider has not counted", metric, label, value)
		}
		return (sum - sumBefore) / float64(count-countBefore) * 1000, nil
	}
	mount, err := took("secretmanager_provider_mount_duration_seconds", "source", "vault")
	if err != nil {
		return a, err
	}
	if a.Login, err = took("secretmanager_provider_vault_request_duration_seconds", "operation", "login"); err != nil {
		return a, err
	}
	if a.Decrypt, err = took("secretmanager_provider_vault_request_duration_seconds", "operation", "decrypt"); err != nil {
		return a, err
	}
	a.Call, a.Own = a.Whole-mount, mount-a.Login-a.Decrypt
	return a, nil
}

func histogram(families map[string]*dto.MetricFamily, metric, label, value string) (sum float64, count uint64) {
	for _, m := range families[metric].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == label && l.GetValue() == value {
				return m.GetHistogram().GetSampleSum(), m.GetHistogram().GetSampleCount()
			}
		}
	}
	return 0, 0
}

// scrape reads the provider's metrics, as Prometheus does.
func (p *provider) scrape(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	address, err := p.listens("metrics")
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider's metrics: %s", resp.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(resp.Body)
}

// listens returns the address on which the provider serves something, which it
// writes into its log.
func (p *provider) listens(what string) (string, error) {
	log, err := os.Open(p.logFile)
	if err != nil {
		return "", err
	}
	defer log.Close()
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct{ Msg, For, Address string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" && line.For == what {
			return line.Address, nil
		}
	}
	return "", fmt.Errorf("the provider does not say where it serves %s", what)
}

func (a anatomy) table(say func(string, ...any)) {
	say("\n%-44s %8s", "a cold mount in parts, one at a time", "mean ms")
	for _, part := range []struct {
		name string
		ms   float64
	}{
		{"what the driver waits for", a.Whole},
		{"  logging in to Vault", a.Login},
		{"  decrypting by Vault", a.Decrypt},
		{"  the provider's own work", a.Own},
		{"  gRPC, and from process to process and back", a.Call},
		{"the floor", a.Floor},
	} {
		say("%-44s %8.2f", part.name, part.ms)
	}
}
