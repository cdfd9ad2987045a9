package rotator_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// A run writes no more than MaxEvents Events.
func TestEventsAreBounded(t *testing.T) {
	f := newFixture(t)
	yes := true
	one := f.encrypt(f.Namespace, "s", map[string]string{"e": "x"})
	one.Immutable = &yes
	for i := range rotator.MaxEvents + 1 {
		one.Name = fmt.Sprintf("s-%03d", i)
		f.CreateSecret(one.DeepCopy())
	}
	f.RotateKey()
	var log bytes.Buffer
	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube,
		f.options(func(o *rotator.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }))
	if k := onlyKey(t, report); !errors.Is(err, rotator.ErrIncomplete) || k.Unresolved.Count != rotator.MaxEvents+1 {
		t.Fatalf("%v, %d unresolved", err, k.Unresolved.Count)
	}
	list, err := f.Kube.CoreV1().Events(f.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != rotator.MaxEvents {
		t.Errorf("%v, %d Events", err, len(list.Items))
	}
	if want := "not all Secrets with unresolved entries get an Event"; !strings.Contains(log.String(), want) {
		t.Error("the log does not report that Events are missing")
	}
}

// Each Secret with unresolved entries gets one Event. Another run increments its count.
func TestEvents(t *testing.T) {
	f := newServerFixture(t)
	yes := true
	fixed := f.encrypt(f.Namespace, "fixed", map[string]string{"a": "1", "b": "2"})
	fixed.Immutable = &yes
	fixed = f.CreateSecret(fixed)
	f.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: f.Namespace, Name: strings.Repeat("long-", 50) + "x",
		Labels: map[string]string{"secretmanager.io/transit-key": f.Key}}, StringData: map[string]string{"p": "hunter2"}})
	f.CreateSecret(f.encrypt(f.Namespace, "good", map[string]string{"e": "x"}))
	f.RotateKey()
	events := func() map[string]corev1.Event {
		t.Helper()
		list, err := f.Kube.CoreV1().Events(f.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]corev1.Event{}
		for _, e := range list.Items {
			found[e.InvolvedObject.Name] = e
		}
		if len(found) != len(list.Items) {
			t.Errorf("%d Events about %d Secrets", len(list.Items), len(found))
		}
		return found
	}
	run := func(dry bool) {
		t.Helper()
		if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube,
			f.options(func(o *rotator.Options) { o.DryRun = dry })); !errors.Is(err, rotator.ErrIncomplete) {
			t.Fatal(err)
		}
	}
	run(true)
	if got := events(); len(got) != 0 {
		t.Errorf("a dry run created Events: %v", got)
	}
	for n := int32(1); n <= 2; n++ {
		run(false)
		got := events()
		if len(got) != 2 {
			t.Fatalf("%d Events, want 2", len(got))
		}
		e := got["fixed"]
		if e.Type != corev1.EventTypeWarning || e.Reason != "NotRewrapped" || e.Count != n ||
			e.InvolvedObject.UID != fixed.UID {
			t.Errorf("run %d: %+v", n, e)
		}
		if want := "SecretImmutable: entry a: has key version 1 instead of 2: the Secret is immutable: delete it and " +
			"create it again " +
			"(and 1 more entries)"; e.Message != want {
			t.Errorf("message %q, want %q", e.Message, want)
		}
		for _, e := range got {
			if strings.Contains(e.Message, "hunter2") || strings.Contains(e.Message, string(fixed.Data["a"])) {
				t.Errorf("the message of an Event has a value: %q", e.Message)
			}
		}
	}
}
