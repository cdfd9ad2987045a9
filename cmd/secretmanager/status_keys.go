package main

import (
	"context"
	"errors"
	"slices"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"

	"golang.org/x/sync/errgroup"
)

// keyReaders is how many keys Vault is asked about at a time.
const keyReaders = 8

// keyReader knows what Vault says of keys, and says on standard error what could
// not be found out.
type keyReader struct {
	*program
	session *transit.Session // nil if there is no way to ask
	answers map[transit.Key]keyAnswer
	said    map[string]bool
}

type keyAnswer struct {
	info transit.KeyInfo
	err  error
}

func (p *program) keyReader() *keyReader {
	r := &keyReader{program: p, answers: map[transit.Key]keyAnswer{}, said: map[string]bool{}}
	var err error
	if r.session, err = p.vault(); err != nil {
		r.session = nil
		r.say(display.Errorf("nothing is known from Vault: %w", err))
	}
	return r
}

// say says a thing once, however often it comes back.
func (r *keyReader) say(err error) {
	if text := err.Error(); !r.said[text] {
		r.said[text] = true
		display.Fprintf(r.ErrOut, "note: %s\n", text)
	}
}

// key is the key that a Secret names; its name is empty if it names none.
func (r *statusRow) key() transit.Key { return transit.Key{Mount: r.Mount, Name: r.Key} }

// keysOf are the keys of the rows, each once.
func keysOf(rows []*statusRow) (keys []transit.Key) {
	known := map[transit.Key]bool{}
	for _, r := range rows {
		if key := r.key(); key.Name != "" && !known[key] {
			known[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// ask asks Vault about keys. The first one tells whether that is of any use:
// nobody waits for the same silence once per key.
func (r *keyReader) ask(ctx context.Context, keys []transit.Key) {
	for at := 1; len(keys) > 0 && r.session != nil; at = keyReaders {
		now := keys[:min(len(keys), at)]
		keys = keys[len(now):]
		answers := make([]keyAnswer, len(now))
		var group errgroup.Group
		for i, key := range now {
			group.Go(func() error {
				answers[i].info, answers[i].err = r.session.Key(ctx, key)
				return nil
			})
		}
		group.Wait()
		if ctx.Err() != nil {
			return
		}
		for i, a := range answers {
			r.answers[now[i]] = a
			if a.err != nil {
				r.say(a.err)
			}
		}
		if slices.ContainsFunc(answers, keyAnswer.useless) {
			return
		}
	}
}

// useless is whether the next key would get the same answer.
func (a keyAnswer) useless() bool {
	return errors.Is(a.err, transit.ErrUnreachable) || errors.Is(a.err, transit.ErrTimeout) ||
		errors.Is(a.err, transit.ErrSealed) || errors.Is(a.err, transit.ErrInvalidToken)
}

// judge judges a row by what is known.
func (r *keyReader) judge(row *statusRow) {
	a, known := r.answers[row.key()]
	switch {
	case errors.Is(a.err, transit.ErrNotFound):
		row.problem("", "key %s is not there", row.key())
		row.judge(nil)
	case !known || a.err != nil:
		row.judge(nil)
	default:
		row.judge(&a.info)
	}
}
