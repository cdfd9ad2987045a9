package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	rotationKey = "rotation" // also the namespace of its Secrets
	rotationNS  = "/api/v1/namespaces/" + rotationKey
	// writers is the concurrency of the floor, the default of the rotator.
	writers = rotator.DefaultConcurrency
)

// A rotation is the cost of rewrapping a number of Secrets to a new key version.
type rotation struct {
	Secrets int `json:"secrets"`
	// Floor is one list and the patches by a bare client, with prepared ciphertext: the mean of one before and one
	// after the rotator, because etcd keeps the old revisions.
	Floor float64 `json:"floorSeconds"`
	List  float64 `json:"floorListSeconds"` // the list's part of it
	// Run is the time of the rotator, with the start of its process.
	Run   float64 `json:"runSeconds"`
	RSS   int64   `json:"runPeakBytes"`
	Vault int64   `json:"runVaultRequests"`
	// Idle is the time of a second run, which has no work, and IdleFloor of a program that only lists the same
	// Secrets (barelist), both with the start of the process: the medians of idleRounds, which alternate. IdleList is
	// the list alone, by a client that exists and decodes nothing.
	Idle      float64 `json:"idleSeconds"`
	IdleFloor float64 `json:"idleFloorSeconds"`
	IdleList  float64 `json:"idleListSeconds"`
	IdleVault int64   `json:"idleVaultRequests"`
	// Written is the number of Secrets that the idle run wrote.
	Written int `json:"idleWritten"`
	// Retire is the time of a run that searches all Secrets and retires the old version.
	Retire float64 `json:"retireSeconds"`
}

// newRotationBench returns a bench without Secrets, which has the key and the namespaces.
func newRotationBench(ctx context.Context, e *environment, dir string,
	say func(string, ...any)) (*rotationBench, error) {
	vault, err := newCounter(e.vault.Address, &http.Transport{MaxIdleConnsPerHost: 16})
	if err != nil {
		return nil, err
	}
	b := &rotationBench{environment: e, dir: dir, say: say, counter: vault}
	client, err := transit.NewClient(transit.Config{Address: e.vault.Address})
	if err != nil {
		return b, err
	}
	b.session = client.Session("", transit.StaticToken(e.vault.RootToken))
	if _, err := e.vault.Write(ctx, "transit/keys/"+rotationKey, map[string]any{"derived": true}); err != nil {
		return b, err
	}
	for _, ns := range []string{rotationKey, rotator.DefaultStateNamespace} {
		if err := e.post(ctx, "/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
			nil); err != nil {
			return b, err
		}
	}
	return b, e.api.CreateRotatorState(ctx, rotator.DefaultStateNamespace)
}

// manySecrets measures the rotator with increasing numbers of Secrets, and status with the
// lowest.
func (b *rotationBench) manySecrets(ctx context.Context, o options) (all []rotation, status *statusRun, err error) {
	counts := []int{10_000, 50_000}
	if o.small || !o.measures("rotator") {
		counts = counts[:1]
	}
	if o.secrets > 0 {
		counts = []int{o.secrets}
	}
	for _, n := range counts {
		if err := b.grow(ctx, n); err != nil {
			return nil, nil, fmt.Errorf("creating %d Secrets: %w", n, err)
		}
		if o.measures("rotator") {
			r, err := b.measure(ctx)
			if err != nil {
				return nil, nil, fmt.Errorf("rotating %d Secrets: %w", n, err)
			}
			all = append(all, r)
		}
		if o.measures("status") && status == nil {
			if status, err = b.status(ctx, o.rounds); err != nil {
				return nil, nil, fmt.Errorf("status of %d Secrets: %w", n, err)
			}
		}
	}
	return all, status, nil
}

type rotationBench struct {
	*environment
	dir     string
	say     func(string, ...any)
	counter *counter // proxy of Vault
	session *transit.Session
	secrets int // number of stored Secrets
}

// encrypt returns ciphertext of one entry for the Secrets from first to last, exclusively.
func (b *rotationBench) encrypt(ctx context.Context, first, last int) ([]transit.Result, error) {
	items := make([]transit.Item, 0, last-first)
	for i := first; i < last; i++ {
		items = append(items,
			transit.Item{Data: bytes.Repeat([]byte{byte(i)}, 104),
				Context: ciphertext.Strict.Context(rotationKey, secretName(i), "value")})
	}
	results, err := b.session.Encrypt(ctx, ciphertext.Key{Mount: "transit", Name: rotationKey}, items)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	return results, err
}

func secretName(i int) string { return fmt.Sprintf("secret-%06d", i) }

// grow creates Secrets until there are n.
func (b *rotationBench) grow(ctx context.Context, n int) error {
	results, err := b.encrypt(ctx, b.secrets, n)
	if err != nil {
		return err
	}
	var made atomic.Int64
	err = b.parallel(ctx, len(results), 16, fmt.Sprintf("creating %d Secrets", n), &made,
		func(ctx context.Context, i int) error {
			return b.post(ctx, rotationNS+"/secrets", &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: secretName(b.secrets + i),
					Labels: map[string]string{ciphertext.LabelTransitKey: rotationKey}},
				Type: ciphertext.Type, Data: map[string][]byte{"value": results[i].Data},
			}, nil)
		})
	b.secrets = n
	return err
}

// parallel calls do n times with a concurrency, and reports progress.
func (b *rotationBench) parallel(ctx context.Context, n, concurrency int, title string, done *atomic.Int64,
	do func(context.Context, int) error) error {
	finished := make(chan struct{})
	defer close(finished)
	b.say("%s", title)
	go func() {
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-finished:
				return
			case <-tick.C:
				b.say("%s: %d of %d", title, done.Load(), n)
			}
		}
	}()
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range concurrency {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					return err
				}
				done.Add(1)
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// measure rotates the existing Secrets: by the floor, by the rotator, again by the rotator
// without work, and with the search before a retirement.
func (b *rotationBench) measure(ctx context.Context) (r rotation, err error) {
	r.Secrets = b.secrets
	if err := b.floor(ctx, &r); err != nil {
		return r, fmt.Errorf("the floor: %w", err)
	}
	b.say("the rotator, %d Secrets", r.Secrets)
	// A run does not rotate a key that was rotated minutes ago.
	if _, err := b.vault.Write(ctx, "transit/keys/"+rotationKey+"/rotate", nil); err != nil {
		return r, err
	}
	before := b.counter.requests.Load()
	report, took, rss, err := b.run(ctx, "--rotate=auto")
	if err != nil {
		return r, err
	}
	if len(report.Keys) != 1 || report.Keys[0].Rewrapped != r.Secrets {
		return r, fmt.Errorf("the rotator did not rewrap %d entries: %+v", r.Secrets, report.Keys)
	}
	r.Run, r.RSS, r.Vault = took.Seconds(), rss, b.counter.requests.Load()-before
	var after rotation
	after.Secrets = r.Secrets
	if err := b.floor(ctx, &after); err != nil {
		return r, fmt.Errorf("the floor: %w", err)
	}
	r.Floor, r.List = (r.Floor+after.Floor)/2, (r.List+after.List)/2
	if err := b.idle(ctx, &r); err != nil {
		return r, err
	}
	report, took, _, err = b.run(ctx, "--rotate=never", "--retire", "--only-user", "--retire-after=0s")
	if err != nil {
		return r, err
	}
	if retire := report.Keys[0].Retire; retire == nil || !retire.Done {
		return r, fmt.Errorf("the old version was not retired: %+v", retire)
	}
	r.Retire = took.Seconds()
	return r, nil
}

// idleRounds is the number of runs without work, of which the median counts.
const idleRounds = 5

// idle alternates lists by a bare client with runs that have nothing to do.
func (b *rotationBench) idle(ctx context.Context, r *rotation) error {
	var lists, floors, runs []time.Duration
	for range idleRounds {
		list, floor, err := b.bareLists(ctx)
		if err != nil {
			return err
		}
		lists, floors = append(lists, list), append(floors, floor)
		before := b.counter.requests.Load()
		report, took, _, err := b.run(ctx, "--rotate=auto")
		if err != nil {
			return err
		}
		runs = append(runs, took)
		r.IdleVault, r.Written = b.counter.requests.Load()-before, r.Written+report.Keys[0].Rewrapped
	}
	r.IdleList, r.IdleFloor, r.Idle = median(lists)/1000, median(floors)/1000, median(runs)/1000
	return nil
}

// bareLists lists all Secrets with a client that exists and decodes nothing, and then with a program.
func (b *rotationBench) bareLists(ctx context.Context) (list, program time.Duration, err error) {
	began := time.Now()
	all, pause, err := b.list(ctx)
	list = time.Since(began) - pause
	if err == nil && len(all) != b.secrets {
		err = fmt.Errorf("%d Secrets are listed", len(all))
	}
	if err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, bareListName), "--kubeconfig="+b.api.Kubeconfig,
		"--selector="+ciphertext.LabelTransitKey+"="+rotationKey)
	cmd.Env = []string{"HOME=" + b.dir}
	stdout, program, _, err := runMeasured(cmd)
	if err == nil && string(stdout) != fmt.Sprintln(b.secrets) {
		err = fmt.Errorf("%s counts %s Secrets", bareListName, stdout)
	}
	return list, program, err
}

// floor lists once, and sends the patches of a rotation. It prepares them in between, which
// is not measured.
func (b *rotationBench) floor(ctx context.Context, r *rotation) error {
	if _, err := b.vault.Write(ctx, "transit/keys/"+rotationKey+"/rotate", nil); err != nil {
		return err
	}
	b.say("the floor, %d Secrets", r.Secrets)
	began := time.Now()
	patches, pause, err := b.list(ctx)
	if err != nil {
		return err
	}
	listed := time.Since(began) - pause
	if len(patches) != r.Secrets {
		return fmt.Errorf("%d Secrets are listed", len(patches))
	}
	results, err := b.encrypt(ctx, 0, r.Secrets)
	if err != nil {
		return err
	}
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	bodies := make([][]byte, len(patches))
	for i, p := range patches {
		version, err := ciphertext.Version(results[i].Data)
		if err != nil {
			return err
		}
		ops := []op{
			{"test", "/metadata/uid", p.uid}, {"test", "/data/value", p.text}, {"replace", "/data/value", results[i].Data},
			{"add", "/metadata/labels/" + pointer(ciphertext.LabelKeyVersion), fmt.Sprint(version)},
		}
		if p.annotated {
			ops = append(ops, op{"add", "/metadata/annotations/" + pointer(ciphertext.AnnotationRewrapped), fmt.Sprint(version)})
		} else {
			ops = append(ops, op{"test", "/metadata/annotations", nil},
				op{"add", "/metadata/annotations", map[string]string{ciphertext.AnnotationRewrapped: fmt.Sprint(version)}})
		}
		if bodies[i], err = json.Marshal(ops); err != nil {
			return err
		}
	}
	var done atomic.Int64
	began = time.Now()
	err = b.parallel(ctx, len(bodies), writers, "the floor's patches", &done, func(ctx context.Context, i int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPatch,
			b.api.Address+rotationNS+"/secrets/"+patches[i].name, bytes.NewReader(bodies[i]))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json-patch+json")
		return send(b.admin, req, nil)
	})
	r.List, r.Floor = listed.Seconds(), (listed + time.Since(began)).Seconds()
	return err
}

type listed struct {
	name, uid string
	annotated bool
	text      []byte
}

// pointer escapes a name as one part of a JSON pointer.
func pointer(name string) string { return strings.ReplaceAll(name, "/", "~1") }

// list lists all Secrets in pages of 500, and returns the parts that the floor needs. The
// pause is the time to extract them, which is not measured.
func (b *rotationBench) list(ctx context.Context) (all []listed, pause time.Duration, err error) {
	for token := ""; ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet,
			b.api.Address+"/api/v1/secrets?limit=500&labelSelector="+ciphertext.LabelTransitKey+"%3D"+rotationKey+
				"&continue="+token, nil)
		if err != nil {
			return nil, 0, err
		}
		req.Header.Set("Accept", "application/vnd.kubernetes.protobuf")
		req.Header.Set("Accept-Encoding", "identity")
		resp, err := b.admin.Do(req)
		if err != nil {
			return nil, 0, err
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, 0, errors.Join(err, errors.New(resp.Status))
		}
		began := time.Now()
		var page corev1.SecretList
		if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(text, nil, &page); err != nil {
			return nil, 0, err
		}
		for _, s := range page.Items {
			all = append(all, listed{s.Name, string(s.UID), len(s.Annotations) > 0, s.Data["value"]})
		}
		pause += time.Since(began)
		if token = page.Continue; token == "" {
			return all, pause, nil
		}
	}
}

// rotationBudgets evaluates the budgets of docs/performance.md for rotations.
func rotationBudgets(all []rotation) (budgets []budget) {
	add := func(b budget) { budgets = append(budgets, b.evaluated()) }
	for _, r := range all {
		what := fmt.Sprintf(", %d Secrets", r.Secrets)
		add(budget{Name: "rotation" + what, Unit: "s", Limit: 1.3, Measured: r.Run, Floor: r.Floor})
		add(budget{Name: "peak memory of a rotation" + what, Unit: "MiB", Limit: 64, Measured: float64(r.RSS) / mib})
		add(budget{Name: "run without work" + what, Unit: "s", Limit: 1.2, Measured: r.Idle, Floor: r.IdleFloor})
		add(budget{Name: "written by a second run" + what, Limit: 0, Measured: float64(r.Written)})
	}
	if len(all) > 1 {
		// The same, apart from garbage that is not collected yet.
		first, last := all[0], all[len(all)-1]
		add(budget{Name: "peak memory, most to fewest Secrets", Unit: "MiB", Limit: 1.15,
			Measured: float64(last.RSS) / mib, Floor: float64(first.RSS) / mib})
	}
	return budgets
}
