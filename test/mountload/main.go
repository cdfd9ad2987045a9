// Command mountload calls a provider to mount volumes at a constant rate, with the driver's own client: its connection,
// retries and file writer. A kubelet cannot start that many pods.
//
// The first line on its standard input is a [load] in JSON. It prints "mounting" after the first mount and continues
// until its standard input ends. Then it waits for the mounts in progress and prints a [report] in JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	secretsstore "sigs.k8s.io/secrets-store-csi-driver/pkg/secrets-store"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// load describes the mounts.
type load struct {
	Directory string              `json:"directory"` // of the sockets
	Provider  string              `json:"provider"`  // name of the socket
	Targets   string              `json:"targets"`   // directory for the volumes; removed at the end
	Rate      int                 `json:"rate"`      // mounts a second
	Pods      []map[string]string `json:"pods"`      // attributes of the mounts, used in turn
	Secrets   map[string][]byte   `json:"secrets"`   // as the kubelet passes them
	Files     map[string]string   `json:"files"`     // the expected content of each volume
}

// report is the result.
type report struct {
	Cold     int      `json:"cold"`     // volumes mounted for the first time
	Repeated int      `json:"repeated"` // repeated mounts
	Fresh    int      `json:"fresh"`    // cold mounts by a driver that had just started
	Failed   int      `json:"failed"`
	Errors   []string `json:"errors"` // the first few
	Slowest  string   `json:"slowest"`
}

const (
	// kubeletTimeout is the kubelet's timeout of a mount.
	kubeletTimeout = 2 * time.Minute
	maxErrors      = 10
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mountload:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	text, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading what to mount: %w", err)
	}
	d := &driver{out: out}
	if err := json.Unmarshal(text, &d.load); err != nil {
		return fmt.Errorf("reading what to mount: %w", err)
	}
	defer os.RemoveAll(d.load.Targets)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		io.Copy(io.Discard, lines)
	}()
	d.run(stop)
	return json.NewEncoder(out).Encode(d.report)
}

// driver simulates the driver.
type driver struct {
	load    load
	out     io.Writer
	clients *secretsstore.PluginClientBuilder

	mu      sync.Mutex
	volumes []*volume // mounted volumes
	report  report
	slowest time.Duration
}

// volume is one of many volumes of a pod. As in the kubelet, its mounts do not overlap.
type volume struct {
	mu     sync.Mutex
	target string
	pod    map[string]string
}

// run mounts until stop is closed. The mounts begin on schedule, even if earlier ones are slow or fail.
func (d *driver) run(stop <-chan struct{}) {
	d.clients = d.newClients()
	defer d.clients.Cleanup()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	begin := time.Now()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(d.load.Rate)))):
		}
		underWay.Go(func() { d.one(n) })
	}
}

// newClients returns the clients of a driver that has just started.
func (d *driver) newClients() *secretsstore.PluginClientBuilder {
	return secretsstore.NewPluginClientBuilder([]string{d.load.Directory})
}

// one makes the n-th mount. Every second mount is a repeated one. Of the others, every fifth is by a driver that has
// just started and must find the socket.
func (d *driver) one(n int) {
	clients, fresh := d.clients, n%10 == 0
	if fresh {
		clients = d.newClients()
		defer clients.Cleanup()
	}
	v, repeated := d.pick(n)
	began := time.Now()
	err := d.mount(clients, v)
	took := time.Since(began)

	d.mu.Lock()
	defer d.mu.Unlock()
	d.slowest = max(d.slowest, took)
	d.report.Slowest = d.slowest.Round(time.Millisecond).String()
	switch {
	case err != nil:
		d.report.Failed++
		if len(d.report.Errors) < maxErrors {
			d.report.Errors = append(d.report.Errors, fmt.Sprintf("mount %d after %s: %v", n, took.Round(time.Millisecond), err))
		}
		return
	case repeated:
		d.report.Repeated++
		return
	}
	d.report.Cold++
	if fresh {
		d.report.Fresh++
	}
	if d.volumes = append(d.volumes, v); len(d.volumes) == 1 {
		fmt.Fprintln(d.out, "mounting")
	}
}

func (d *driver) pick(n int) (v *volume, repeated bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n%2 == 1 && len(d.volumes) > 0 {
		return d.volumes[n%len(d.volumes)], true
	}
	return &volume{target: filepath.Join(d.load.Targets, strconv.Itoa(n)), pod: d.load.Pods[n/2%len(d.load.Pods)]}, false
}

// mount calls the provider to mount the volume, and checks the content.
func (d *driver) mount(clients *secretsstore.PluginClientBuilder, v *volume) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), kubeletTimeout)
	defer cancel()
	if err := os.MkdirAll(v.target, 0o750); err != nil {
		return err
	}
	a, err := json.Marshal(v.pod)
	if err != nil {
		return err
	}
	secrets := make(map[string]string, len(d.load.Secrets))
	for name, text := range d.load.Secrets {
		secrets[name] = string(text)
	}
	s, err := json.Marshal(secrets)
	if err != nil {
		return err
	}
	var client v1alpha1.CSIDriverProviderClient
	if client, err = clients.Get(ctx, d.load.Provider); err != nil {
		return err
	}
	versions, _, err := secretsstore.MountContent(ctx, client, string(a), string(s), v.target, "420", nil)
	if err != nil {
		return err
	}
	if len(versions) != len(d.load.Files) {
		return fmt.Errorf("%d object versions, want %d", len(versions), len(d.load.Files))
	}
	for name, want := range d.load.Files {
		got, err := os.ReadFile(filepath.Join(v.target, name))
		if err != nil {
			return err
		}
		if string(got) != want {
			return fmt.Errorf("%s has %d bytes that are not the ones encrypted", name, len(got))
		}
	}
	return nil
}
