package rotator

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// eventReason is the reason of the Events about Secrets that are left.
	eventReason = "NotRewrapped"
	// maxEvents bounds what one run says to the API server in that way.
	maxEvents = 100
	// maxEventMessage is how long the API server lets a message be.
	maxEventMessage = 1024
)

// tell makes an Event of each Secret that is left. client-go's recorder would do
// it in the background and drop what is too much without a word, and a run ends
// soon. The name of an Event follows from the Secret, so that runs soon after each
// other count one up rather than make many.
func (r *run) tell(ctx context.Context) {
	type place struct{ namespace, name string }
	var order []place
	about := map[place][]Left{}
	take := func(rest []Left) {
		for _, l := range rest {
			p := place{l.Namespace, l.Name}
			if l.Name == "" {
				continue // a namespace
			}
			if about[p] == nil {
				order = append(order, p)
			}
			about[p] = append(about[p], l)
		}
	}
	take(r.report.Left)
	for _, k := range r.report.Keys {
		take(k.Left)
	}
	for n, p := range order {
		if n == maxEvents {
			r.Log.Warn("more Secrets are left than get an Event", "secrets", len(order), "events", maxEvents)
			return
		}
		if err := r.tellOf(ctx, p.namespace, p.name, about[p]); err != nil {
			// The report names them all the same.
			r.Log.Warn("no Event can be made: check that this identity may create, get and update events there",
				"secret", p.namespace+"/"+p.name, "error", err)
		}
	}
}

func (r *run) tellOf(ctx context.Context, namespace, name string, left []Left) error {
	// kubectl describe finds the Events of an object by its uid.
	secret, err := r.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now, events := metav1.NewTime(r.Now()), r.kube.CoreV1().Events(namespace)
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: eventName(secret)},
		InvolvedObject: corev1.ObjectReference{Kind: "Secret", APIVersion: "v1", Namespace: namespace, Name: name,
			UID: secret.UID, ResourceVersion: secret.ResourceVersion},
		Type: corev1.EventTypeWarning, Reason: eventReason, Message: eventMessage(left),
		Source:         corev1.EventSource{Component: "secretmanager-rotator"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	_, err = events.Create(ctx, event, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	last, err := events.Get(ctx, event.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	last.Message, last.LastTimestamp, last.Count, last.InvolvedObject = event.Message, now, last.Count+
		1, event.InvolvedObject
	_, err = events.Update(ctx, last, metav1.UpdateOptions{})
	return err
}

// eventName is one for each Secret, and another if it was made anew.
func eventName(s *corev1.Secret) string {
	sum := sha256.Sum256([]byte(string(s.UID) + eventReason))
	return fmt.Sprintf("%s.%x", strings.TrimRight(s.Name[:min(len(s.Name), 200)], "-."), sum[:8])
}

func eventMessage(left []Left) string {
	first := left[0]
	text := first.Reason
	if first.Entry != "" {
		text = "entry " + first.Entry + ": " + text
	}
	more := ""
	if len(left) > 1 {
		more = fmt.Sprintf(" (and %d more entries)", len(left)-1)
	}
	if most := maxEventMessage - len(more); len(text) > most {
		text = strings.ToValidUTF8(text[:most-len("…")], "") + "…"
	}
	return text + more
}
