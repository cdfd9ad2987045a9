package inventory

import (
	"context"
	"errors"
	"slices"

	"github.com/secretmanager-io/secretmanager/transit"

	"golang.org/x/sync/errgroup"
)

// keyReaders is how many keys Vault is asked about at a time.
const keyReaders = 8

// KeyReader knows what Vault says of keys, and says on standard error what could
// not be found out.
type KeyReader struct {
	session *transit.Session // nil if there is no way to ask
	note    func(string)     // takes what could not be found out
	Answers map[transit.Key]keyAnswer
	said    map[string]bool
}

type keyAnswer struct {
	Info transit.KeyInfo
	err  error
}

func NewKeyReader(session *transit.Session, note func(string)) *KeyReader {
	return &KeyReader{session: session, note: note, Answers: map[transit.Key]keyAnswer{}, said: map[string]bool{}}
}

// Say says a thing once, however often it comes back.
func (r *KeyReader) Say(err error) {
	if text := err.Error(); !r.said[text] {
		r.said[text] = true
		r.note(text)
	}
}

// KeysOf are the keys of the rows, each once.
func KeysOf(rows []*Secret) (keys []transit.Key) {
	known := map[transit.Key]bool{}
	for _, r := range rows {
		if key := r.TransitKey(); key.Name != "" && !known[key] {
			known[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// Ask asks Vault about keys. The first one tells whether that is of any use:
// nobody waits for the same silence once per key.
func (r *KeyReader) Ask(ctx context.Context, keys []transit.Key) {
	for at := 1; len(keys) > 0 && r.session != nil; at = keyReaders {
		now := keys[:min(len(keys), at)]
		keys = keys[len(now):]
		answers := make([]keyAnswer, len(now))
		var group errgroup.Group
		for i, key := range now {
			group.Go(func() error {
				answers[i].Info, answers[i].err = r.session.Key(ctx, key)
				return nil
			})
		}
		group.Wait()
		if ctx.Err() != nil {
			return
		}
		for i, a := range answers {
			r.Answers[now[i]] = a
			if a.err != nil {
				r.Say(a.err)
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

// Judge judges a row by what is known.
func (r *KeyReader) Judge(row *Secret) {
	a, known := r.Answers[row.TransitKey()]
	switch {
	case errors.Is(a.err, transit.ErrNotFound):
		row.problem("", "key %s is not there", row.TransitKey())
		row.judge(nil)
	case !known || a.err != nil:
		row.judge(nil)
	default:
		row.judge(&a.Info)
	}
}
