package inventory

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Watcher shows the ciphertext Secrets of namespaces, or of all if there are none, and then each one that changes.
type Watcher struct {
	Kube       kubernetes.Interface
	Namespaces []string
	Selector   string
	Select     func(*Secret) bool // nil: all
	Keys       *KeyReader
	KeyPoll    time.Duration // interval at which the keys are read: Vault sends no events, and a rotation begins there
	Show       func(*Secret) error
	Flush      func() error // is called after calls of Show

	rows map[types.NamespacedName]*watched
}

// watched is a Secret that has been shown.
type watched struct {
	seen  *Secret // without a state
	shown *Secret
	from  int // index of the selection that has it
}

// event is a change in one of the selections.
type event struct {
	from    int
	rows    []*Secret
	deleted bool // deleted, or no longer selected
	all     bool // there are no others
	err     error
}

// Run shows Secrets until the context ends. A watch that breaks is resumed, or replaced by a new list of
// which only the differences are shown.
func (w *Watcher) Run(ctx context.Context) error {
	rows, err := List(ctx, w.Kube, w.Namespaces, w.Selector)
	if err != nil {
		return err
	}
	w.rows = map[types.NamespacedName]*watched{}
	w.Keys.Read(ctx, rows)
	if len(rows) == 0 {
		w.Keys.Note(errors.New("no ciphertext Secrets found so far"))
	}
	if err := w.take(ctx, event{rows: rows}); err != nil {
		return err
	}
	events := make(chan event)
	ctx, stop := context.WithCancel(klog.NewContext(ctx, klog.Logger{}))
	defer stop()
	for from, one := range partsOf(w.Namespaces, w.Selector) {
		go follow(ctx, w.Kube, one.namespace, one.ListOptions(), store{ctx, from, events})
	}
	tick := time.NewTicker(w.KeyPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // the user has interrupted the watch
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

// take handles an event and shows what has changed.
func (w *Watcher) take(ctx context.Context, e event) error {
	if w.Select != nil {
		e.rows = slices.DeleteFunc(e.rows, func(r *Secret) bool { return !w.Select(r) })
	}
	if e.err != nil {
		w.Keys.Note(display.Errorf("watching Secrets: %w", e.err))
		return nil
	}
	var unread []*Secret
	present := map[types.NamespacedName]bool{}
	for _, r := range e.rows {
		present[r.NamespacedName()] = true
		latest, known := w.Keys.Latest(r.TransitKey())
		// An entry newer than the key means that the key has been rotated since it was read.
		if !e.deleted && (!known || r.Newest > latest) {
			unread = append(unread, r)
		}
	}
	w.Keys.Read(ctx, unread)
	for _, r := range e.rows {
		id := r.NamespacedName()
		old := w.rows[id]
		switch {
		case !e.deleted && old == nil:
			w.rows[id] = &watched{seen: r, from: e.from}
		case !e.deleted:
			old.seen, old.from = r, e.from
		case old != nil && old.from == e.from: // else the other selection has it now
			if err := w.showDeleted(id); err != nil {
				return err
			}
		}
	}
	if e.all {
		for id, old := range w.rows {
			if old.from == e.from && !present[id] {
				if err := w.showDeleted(id); err != nil {
					return err
				}
			}
		}
	}
	for _, r := range e.rows {
		if err := w.show(r.NamespacedName()); err != nil {
			return err
		}
	}
	return w.Flush()
}

// refresh reads the keys again and shows what has changed.
func (w *Watcher) refresh(ctx context.Context) error {
	var rows []*Secret
	for _, r := range w.rows {
		rows = append(rows, r.seen)
	}
	Sort(rows)
	w.Keys.Read(ctx, rows)
	for _, r := range rows {
		if err := w.show(r.NamespacedName()); err != nil {
			return err
		}
	}
	return w.Flush()
}

// show shows a Secret if it differs from what was shown last.
func (w *Watcher) show(id types.NamespacedName) error {
	r := w.rows[id]
	if r == nil {
		return nil
	}
	current := r.seen.Clone()
	w.Keys.SetState(current)
	if reflect.DeepEqual(current, r.shown) {
		return nil
	}
	r.shown = current
	return w.Show(current)
}

func (w *Watcher) showDeleted(id types.NamespacedName) error {
	secret := w.rows[id].shown
	delete(w.rows, id)
	secret.State = Deleted
	return w.Show(secret)
}

// follow lists and watches one selection until the context ends.
func follow(ctx context.Context, kube kubernetes.Interface, namespace string, options metav1.ListOptions, store store) {
	selected := cache.NewFilteredListWatchFromClient(kube.CoreV1().RESTClient(), "secrets", namespace,
		func(o *metav1.ListOptions) {
			o.LabelSelector, o.FieldSelector = options.LabelSelector, options.FieldSelector
		})
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		silent := klog.Logger{} // watch reports errors itself
		err := cache.NewReflectorWithOptions(selected, &corev1.Secret{}, store,
			cache.ReflectorOptions{Logger: &silent}).ListAndWatchWithContext(ctx)
		if err == nil {
			pause = time.Second / 2
			continue // the resource version has expired: list again
		}
		store.send(event{err: err})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// store implements cache.Store for a reflector: it sends events and stores nothing.
type store struct {
	ctx    context.Context
	from   int
	events chan<- event
}

func (s store) send(e event, objects ...any) error {
	e.from = s.from
	for _, o := range objects {
		secret, ok := o.(*corev1.Secret)
		if !ok {
			return display.Errorf("the API server sent a %T in a watch of Secrets", o)
		}
		e.rows = append(e.rows, NewSecret(secret))
	}
	select {
	case s.events <- e:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s store) Add(o any) error    { return s.send(event{}, o) }
func (s store) Update(o any) error { return s.send(event{}, o) }
func (s store) Delete(o any) error { return s.send(event{deleted: true}, o) }
func (s store) Replace(list []any, _ string) error {
	return s.send(event{all: true}, list...)
}
func (s store) Resync() error { return nil }
