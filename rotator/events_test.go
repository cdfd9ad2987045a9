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

// Each Secret that is left gets one Event, which a further run counts up.
// A cluster in which all is left does not get an Event for each.
func TestEventsAreBounded(t *testing.T) {
	w := newWorld(t)
	yes := true
	one := w.seal(w.ns, "s", map[string]string{"e": "x"})
	one.Immutable = &yes
	for i := range rotator.MaxEvents + 1 {
		one.Name = fmt.Sprintf("s-%03d", i)
		w.store(one.DeepCopy())
	}
	w.rotateKey()
	var log bytes.Buffer
	report, err := rotator.Run(t.Context(), w.minimal(), w.kube,
		w.options(func(o *rotator.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }))
	if k := only(t, report); !errors.Is(err, rotator.ErrIncomplete) || k.LeftCount != rotator.MaxEvents+1 {
		t.Fatalf("%v, %d left", err, k.LeftCount)
	}
	list, err := w.kube.CoreV1().Events(w.ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != rotator.MaxEvents {
		t.Errorf("%v, %d Events", err, len(list.Items))
	}
	if want := "more Secrets are left than get an Event"; !strings.Contains(log.String(), want) {
		t.Error("the log does not say that there are more")
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	yes := true
	fixed := w.seal(w.ns, "fixed", map[string]string{"a": "1", "b": "2"})
	fixed.Immutable = &yes
	fixed = w.store(fixed)
	w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: strings.Repeat("long-", 50) + "x",
		Labels: map[string]string{"secretmanager.io/transit-key": w.key}}, StringData: map[string]string{"p": "hunter2"}})
	w.store(w.seal(w.ns, "good", map[string]string{"e": "x"}))
	w.rotateKey()
	events := func() map[string]corev1.Event {
		t.Helper()
		list, err := w.kube.CoreV1().Events(w.ns).List(t.Context(), metav1.ListOptions{})
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
		if _, err := rotator.Run(t.Context(), w.minimal(), w.kube,
			w.options(func(o *rotator.Options) { o.DryRun = dry })); !errors.Is(err, rotator.ErrIncomplete) {
			t.Fatal(err)
		}
	}
	run(true)
	if got := events(); len(got) != 0 {
		t.Errorf("a dry run made Events: %v", got)
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
		if want := "entry a: has key version 1 instead of 2: the Secret is immutable: delete it and create it again " +
			"(and 1 more entries)"; e.Message != want {
			t.Errorf("message %q, want %q", e.Message, want)
		}
		for _, e := range got {
			if strings.Contains(e.Message, "hunter2") || strings.Contains(e.Message, string(fixed.Data["a"])) {
				t.Errorf("a value is in the message of an Event: %q", e.Message)
			}
		}
	}
}
