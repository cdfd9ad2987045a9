package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
)

// machine describes the machine of the measurements. Unknown fields are empty.
type machine struct {
	Cores      int    `json:"cores"`
	Processor  string `json:"processor"`
	Memory     int64  `json:"memoryBytes"`
	System     string `json:"system"`
	Load       string `json:"loadBefore"` // of the last minute
	Go         string `json:"go"`
	Vault      string `json:"vault"`
	Kubernetes string `json:"kubernetes"`
}

func describe(ctx context.Context, e *environment) machine {
	m := machine{Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	read := func(file string) string {
		text, _ := os.ReadFile(file)
		return string(text)
	}
	m.Memory, _ = parseKB(read("/proc/meminfo"), "MemTotal:")
	m.Load, _, _ = strings.Cut(read("/proc/loadavg"), " ")
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	get := func(client *http.Client, address string, out any) {
		if req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil); err == nil {
			_ = send(client, req, out)
		}
	}
	var vault struct{ Version string }
	get(http.DefaultClient, e.vault.Address+"/v1/sys/health", &vault)
	var kubernetes struct{ GitVersion string }
	get(e.admin, e.api.Address+"/version", &kubernetes)
	m.Vault, m.Kubernetes = vault.Version, kubernetes.GitVersion
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores (%s), %.0f GiB, %s; load before: %s\n%s, Vault %s, Kubernetes %s",
		m.Cores, m.Processor, float64(m.Memory)/(1<<30), m.System, m.Load, m.Go, m.Vault, m.Kubernetes)
}
