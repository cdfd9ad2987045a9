package rotator

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// eventReason is the reason of the Events about Secrets with unresolved entries.
	eventReason = "NotRewrapped"
	// maxEvents bounds how many Events one run writes.
	maxEvents = 100
	// maxEventMessage is the API server's limit for a message.
	maxEventMessage = 1024
)

// recordEvents writes one Event for each Secret with unresolved entries.
// client-go's recorder writes in the background and drops Events silently, and a
// run ends soon. The name of an Event is derived from the Secret, so that later
// runs increment its count instead of creating another.
func (r *run) recordEvents(ctx context.Context) {
	var order []types.NamespacedName
	problems := map[types.NamespacedName][]Problem{}
	add := func(items []Problem) {
		for _, p := range items {
			if p.Name == "" {
				continue // a namespace
			}
			secret := types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
			if problems[secret] == nil {
				order = append(order, secret)
			}
			problems[secret] = append(problems[secret], p)
		}
	}
	add(r.report.Unassigned.Items)
	for _, k := range r.report.Keys {
		add(k.Unresolved.Items)
	}
	for i, secret := range order {
		if i == maxEvents {
			r.Log.Warn("not all Secrets with unresolved entries get an Event", "secrets", len(order), "events", maxEvents)
			return
		}
		if err := r.recordEvent(ctx, secret, problems[secret]); err != nil {
			// The report names the Secret too.
			r.Log.Warn("cannot record an Event: check that this identity may create, get and update events there",
				"secret", secret.String(), "error", err)
		}
	}
}

func (r *run) recordEvent(ctx context.Context, name types.NamespacedName, problems []Problem) error {
	// kubectl describe finds the Events of an object by its uid.
	secret, err := r.kube.CoreV1().Secrets(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now, events := metav1.NewTime(r.Now()), r.kube.CoreV1().Events(name.Namespace)
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: eventName(secret)},
		InvolvedObject: corev1.ObjectReference{Kind: "Secret", APIVersion: "v1", Namespace: name.Namespace,
			Name: name.Name, UID: secret.UID, ResourceVersion: secret.ResourceVersion},
		Type: corev1.EventTypeWarning, Reason: eventReason, Message: eventMessage(problems),
		Source:         corev1.EventSource{Component: "secretmanager-rotator"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	_, err = events.Create(ctx, event, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	existing, err := events.Get(ctx, event.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	existing.Message, existing.InvolvedObject = event.Message, event.InvolvedObject
	existing.LastTimestamp, existing.Count = now, existing.Count+1
	_, err = events.Update(ctx, existing, metav1.UpdateOptions{})
	return err
}

// eventName returns the name of the Event of a Secret. A recreated Secret has another.
func eventName(s *corev1.Secret) string {
	sum := sha256.Sum256([]byte(string(s.UID) + eventReason))
	return fmt.Sprintf("%s.%x", strings.TrimRight(s.Name[:min(len(s.Name), 200)], "-."), sum[:8])
}

func eventMessage(problems []Problem) string {
	first := problems[0]
	text := first.Reason
	if reason, detail, ok := strings.Cut(text, ": "); ok && first.Entry != "" {
		text = reason + ": entry " + first.Entry + ": " + detail
	}
	more := ""
	if len(problems) > 1 {
		more = fmt.Sprintf(" (and %d more entries)", len(problems)-1)
	}
	return shorten(text, maxEventMessage-len(more)) + more
}
