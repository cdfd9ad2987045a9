package provider

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// maxAnswer is what the driver accepts unless told otherwise. Beyond, its gRPC
// would say ResourceExhausted, which is one of the codes that must not be.
const maxAnswer = 4 << 20

// decode returns the content. White space around it comes from the editor. The error repeats none of it.
func decode(e class.Encoding, data []byte) ([]byte, error) {
	switch e {
	case class.Base64:
		text := bytes.TrimSpace(data)
		out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(out, text)
		if err != nil {
			return nil, fmt.Errorf("it is not base64: %w", err) // which says where
		}
		// White space in the text leaves room that would be held as long as the content.
		return bytes.Clone(out[:n]), nil
	case class.Hex:
		text := bytes.TrimSpace(data)
		out := make([]byte, hex.DecodedLen(len(text)))
		if _, err := hex.Decode(out, text); err != nil {
			return nil, fmt.Errorf("it is not hex digits, two for each byte")
		}
		return out, nil
	}
	return data, nil
}

// files makes the answer from the plaintext of each entry. It goes by entry, so that
// one document is in memory at a time.
func (p *Provider) files(ctx context.Context, r *request, objects []class.Object,
	plaintext map[string][]byte) (*v1alpha1.MountResponse, *failure.Error) {
	what := "making the files of " + r.describeSecret()
	budget := document.NewBudget(ctx, document.MaxWork)
	contents := make([][]byte, len(objects))
	found := map[int]string{} // problems, by object
	size := 0
	for _, of := range byEntry(objects) {
		source := &source{plaintext: plaintext[objects[of[0]].Entry], budget: budget, made: map[string]made{}}
		for _, i := range of {
			o := objects[i]
			content, err := source.content(o)
			switch {
			case ctx.Err() != nil:
				return nil, p.timeoutFailure(r, "writing the files")
			case err != nil:
				found[i] = fmt.Sprintf("file %s from entry %s: %s", failure.Quote(o.Path), failure.Quote(o.Entry), err)
			}
			contents[i] = content
			size += len(content)
			if len(found) >= failure.MaxProblems || errors.Is(err, document.ErrBudget) || size > maxAnswer {
				break // before time or memory is spent on what cannot be sent
			}
		}
		if len(found) >= failure.MaxProblems || budget.Left() < 0 || size > maxAnswer {
			break
		}
	}
	if len(found) > 0 {
		var problems []string
		for _, i := range slices.Sorted(maps.Keys(found)) {
			problems = append(problems, found[i])
		}
		return nil, failure.InvalidContent.New(what, failure.List(problems),
			"objects in the class, and the plaintext with `secretmanager edit`")
	}
	resp := &v1alpha1.MountResponse{}
	if size <= maxAnswer {
		for i, o := range objects {
			resp.Files = append(resp.Files, &v1alpha1.File{Path: o.Path, Mode: int32(o.Mode.Perm()), Contents: contents[i]})
			resp.ObjectVersion = append(resp.ObjectVersion, &v1alpha1.ObjectVersion{
				Id: o.Path, Version: objectVersion(p.config.VersionKey, r.pod.namespace, r.Secret, o.Path, contents[i]),
			})
		}
		size = proto.Size(resp)
	}
	if size > maxAnswer {
		return nil, failure.VolumeTooLarge.New(what,
			fmt.Sprintf("they are larger than %d MiB together, the limit of the driver for one volume", maxAnswer>>20),
			"objects in the class: use fewer entries, or several classes and volumes")
	}
	return resp, nil
}

// byEntry returns the positions of the objects of each entry, the entries in the
// order in which they first come.
func byEntry(objects []class.Object) (all [][]int) {
	at := map[string]int{}
	for i, o := range objects {
		n, ok := at[o.Entry]
		if !ok {
			n = len(all)
			at[o.Entry] = n
			all = append(all, nil)
		}
		all[n] = append(all[n], i)
	}
	return all
}

// source is one plaintext that files are made of. It is read as a document once
// only, and each field and encoding of it is made once only.
type source struct {
	plaintext []byte
	budget    *document.Budget
	doc       *document.Document
	docErr    error
	made      map[string]made // by field and encoding
}

type made struct {
	content []byte
	err     error
}

func (s *source) content(o class.Object) ([]byte, error) {
	key := fmt.Sprintf("%q %s", o.Field, o.Encoding)
	m, ok := s.made[key]
	if !ok {
		m.content, m.err = s.make(o)
		s.made[key] = m
	}
	return m.content, m.err
}

func (s *source) make(o class.Object) ([]byte, error) {
	data := s.plaintext
	if o.Field != nil {
		if s.doc == nil && s.docErr == nil {
			s.doc, s.docErr = document.Parse(data)
		}
		if s.docErr != nil {
			return nil, s.docErr
		}
		var err error
		if data, err = s.doc.Get(s.budget, o.Field); err != nil {
			return nil, err
		}
	}
	if err := s.budget.Spend(1 + len(data)/document.WorkUnit); err != nil {
		return nil, err
	}
	return decode(o.Encoding, data)
}
