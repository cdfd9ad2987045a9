package main

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/display"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// keyPoll is how often Vault is asked about the keys while Secrets are watched:
// it tells of nothing by itself, and a rotation begins there.
const keyPoll = 10 * time.Second

// watched is a Secret as it was shown last.
type watched struct {
	seen  *statusRow // not judged
	shown *statusRow
	from  int // which of the two selections has it
}

// statusWatch shows Secrets as they change.
type statusWatch struct {
	*status
	keys  *keyReader
	rows  map[types.NamespacedName]*watched
	table *statusTable // nil until there is something to show
}

// statusEvent is what a selection tells of Secrets.
type statusEvent struct {
	from int
	rows []*statusRow
	gone bool // they are deleted, or not selected any more
	all  bool // there are no others
	err  error
}

// watch shows the Secrets there are and then each one that changes, until the
// context ends. What is broken off is taken up again: from where it was, or by a
// new list, of which only the differences are shown.
func (o *status) watch(ctx context.Context, kube kubernetes.Interface, namespace string) error {
	rows, err := listStatus(ctx, kube, namespace, o.selector)
	if err != nil {
		return err
	}
	w := &statusWatch{status: o, keys: o.keyReader(), rows: map[types.NamespacedName]*watched{}}
	w.keys.ask(ctx, keysOf(rows))
	if len(rows) == 0 {
		fmt.Fprintln(o.ErrOut, "no ciphertext Secrets found so far")
	}
	if err := w.take(ctx, statusEvent{rows: rows}); err != nil {
		return err
	}
	events := make(chan statusEvent)
	ctx, stop := context.WithCancel(klog.NewContext(ctx, klog.Logger{}))
	defer stop()
	for from, options := range selections(o.selector) {
		go follow(ctx, kube, namespace, options, statusStore{ctx, from, events})
	}
	tick := time.NewTicker(o.keyPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // that is how it ends
		case e := <-events:
			if e.err != nil && (apierrors.IsForbidden(e.err) || apierrors.IsUnauthorized(e.err)) {
				return display.Errorf("watching Secrets: %w", e.err)
			}
			err = w.take(ctx, e)
		case <-tick.C:
			err = w.refresh(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// take takes in an event and shows what is new in it.
func (w *statusWatch) take(ctx context.Context, e statusEvent) error {
	if e.err != nil {
		w.keys.say(display.Errorf("watching Secrets: %w", e.err))
		return nil
	}
	var ask []*statusRow
	present := map[types.NamespacedName]bool{}
	for _, r := range e.rows {
		present[r.id()] = true
		a, known := w.keys.answers[r.key()]
		// A version that is newer than the key means that the key has become newer.
		if !e.gone && (!known || r.Newest > a.info.Latest) {
			ask = append(ask, r)
		}
	}
	w.keys.ask(ctx, keysOf(ask))
	for _, r := range e.rows {
		id := r.id()
		old := w.rows[id]
		switch {
		case !e.gone && old == nil:
			w.rows[id] = &watched{seen: r, from: e.from}
		case !e.gone:
			old.seen, old.from = r, e.from
		case old != nil && old.from == e.from: // else the other selection has it by now
			if err := w.showGone(id); err != nil {
				return err
			}
		}
	}
	if e.all {
		for id, old := range w.rows {
			if old.from == e.from && !present[id] {
				if err := w.showGone(id); err != nil {
					return err
				}
			}
		}
	}
	for _, r := range e.rows {
		if err := w.show(r.id()); err != nil {
			return err
		}
	}
	return w.flush()
}

// refresh asks Vault about the keys again and shows what that changes.
func (w *statusWatch) refresh(ctx context.Context) error {
	var rows []*statusRow
	for _, r := range w.rows {
		rows = append(rows, r.seen)
	}
	sortRows(rows)
	w.keys.ask(ctx, keysOf(rows))
	for _, r := range rows {
		if err := w.show(r.id()); err != nil {
			return err
		}
	}
	return w.flush()
}

func (w *statusWatch) flush() error {
	if w.table == nil {
		return nil
	}
	return w.table.out.Flush()
}

// show shows a Secret if it is not as it was shown last.
func (w *statusWatch) show(id types.NamespacedName) error {
	r := w.rows[id]
	if r == nil {
		return nil
	}
	now := r.seen.clone()
	w.keys.judge(now)
	if reflect.DeepEqual(now, r.shown) {
		return nil
	}
	r.shown = now
	return w.write(now)
}

func (w *statusWatch) showGone(id types.NamespacedName) error {
	gone := w.rows[id].shown
	delete(w.rows, id)
	gone.State = stateDeleted
	return w.write(gone)
}

func (w *statusWatch) write(r *statusRow) error {
	switch w.output {
	case "json":
		text, err := json.Marshal(r)
		if err == nil {
			_, err = w.Out.Write(append(display.JSON(text), '\n'))
		}
		return err
	case "name":
		_, err := display.Fprintf(w.Out, "secret/%s\n", r.Name)
		return err
	}
	if w.table == nil {
		w.table = w.newTable()
		w.table.header()
	}
	w.table.now = time.Now()
	w.table.row(r)
	if r.State == stateBroken {
		w.sayBroken(r)
	}
	return nil
}

func (r *statusRow) id() types.NamespacedName {
	return types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
}

// follow lists and watches one selection until the context ends.
func follow(ctx context.Context, kube kubernetes.Interface, namespace string, options metav1.ListOptions, store statusStore) {
	selected := cache.NewFilteredListWatchFromClient(kube.CoreV1().RESTClient(), "secrets", namespace, func(o *metav1.ListOptions) {
		o.LabelSelector, o.FieldSelector = options.LabelSelector, options.FieldSelector
	})
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		silent := klog.Logger{} // what there is to say is said here
		err := cache.NewReflectorWithOptions(selected, &corev1.Secret{}, store, cache.ReflectorOptions{Logger: &silent}).ListAndWatchWithContext(ctx)
		if err == nil {
			pause = time.Second / 2
			continue // the server has forgotten where it was: a new list
		}
		store.send(statusEvent{err: err})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// statusStore is what client-go takes for a cache: it hands on, and keeps nothing.
type statusStore struct {
	ctx    context.Context
	from   int
	events chan<- statusEvent
}

func (s statusStore) send(e statusEvent, objects ...any) error {
	e.from = s.from
	for _, o := range objects {
		secret, ok := o.(*corev1.Secret)
		if !ok {
			return display.Errorf("the API server told of a %T among Secrets", o)
		}
		e.rows = append(e.rows, rowOf(secret))
	}
	select {
	case s.events <- e:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s statusStore) Add(o any) error    { return s.send(statusEvent{}, o) }
func (s statusStore) Update(o any) error { return s.send(statusEvent{}, o) }
func (s statusStore) Delete(o any) error { return s.send(statusEvent{gone: true}, o) }
func (s statusStore) Replace(list []any, _ string) error {
	return s.send(statusEvent{all: true}, list...)
}
func (s statusStore) Resync() error { return nil }
