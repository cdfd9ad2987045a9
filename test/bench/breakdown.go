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

// breakdown has the parts of the time of a cold mount with one entry from the kubelet,
// without concurrency. They are means in milliseconds, so that the parts add up.
type breakdown struct {
	// Floor is the time of the bare client, in the same round.
	Floor float64 `json:"floorMs"`
	// Total is the time that the driver waits.
	Total float64 `json:"totalMs"`
	// Call is the time outside of the provider's work: gRPC and the context switches.
	Call    float64 `json:"callMs"`
	Login   float64 `json:"loginMs"`
	Decrypt float64 `json:"decryptMs"`
	// Own is the work of the provider without waiting for Vault.
	Own float64 `json:"ownMs"`
}

// measureBreakdown mounts for new pods, and reads the durations from the provider's metrics.
func measureBreakdown(ctx context.Context, e *environment, f *floor, p *provider) (a breakdown, err error) {
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
	if a.Total, err = mean(kindCold); err != nil {
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
			return 0, fmt.Errorf("metric %s{%s=%q} of the provider did not change", metric, label, value)
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
	a.Call, a.Own = a.Total-mount, mount-a.Login-a.Decrypt
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

// scrape reads the provider's metrics.
func (p *provider) scrape(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	address, err := p.listenAddress("metrics")
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

// listenAddress returns the address of a listener from the provider's log.
func (p *provider) listenAddress(listener string) (string, error) {
	log, err := os.Open(p.logFile)
	if err != nil {
		return "", err
	}
	defer log.Close()
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct{ Msg, For, Address string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" && line.For == listener {
			return line.Address, nil
		}
	}
	return "", fmt.Errorf("the provider's log has no address of %s", listener)
}

func (a breakdown) table(say func(string, ...any)) {
	say("\n%-44s %8s", "parts of a cold mount, without concurrency", "mean ms")
	for _, part := range []struct {
		name string
		ms   float64
	}{
		{"total", a.Total},
		{"  login to Vault", a.Login},
		{"  decryption by Vault", a.Decrypt},
		{"  the provider's own work", a.Own},
		{"  gRPC and context switches", a.Call},
		{"the floor", a.Floor},
	} {
		say("%-44s %8.2f", part.name, part.ms)
	}
}
