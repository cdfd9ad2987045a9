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
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// maxResponse is the default limit of the driver's gRPC client. Beyond it, the client fails with ResourceExhausted, a
// code that is not final for the kubelet.
const maxResponse = 4 << 20

// decode returns the content. It ignores surrounding white space, which editors add. The error does not quote the data.
func decode(e class.Encoding, data []byte) ([]byte, error) {
	switch e {
	case class.Base64:
		text := bytes.TrimSpace(data)
		out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(out, text)
		if err != nil {
			return nil, fmt.Errorf("it is not base64: %w", err) // has only the offset
		}
		// White space in the text leaves unused capacity.
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

// buildResponse builds the files from the plaintext of each entry. It proceeds by entry, so that one document is in
// memory at a time.
func (p *Provider) buildResponse(ctx context.Context, r *request, objects []class.Object,
	plaintext map[string][]byte) (*v1alpha1.MountResponse, *failure.Error) {
	what := "making the files of " + r.describeSecret()
	budget := document.NewBudget(ctx, document.MaxWork)
	contents := make([][]byte, len(objects))
	found := map[int]string{} // problems, by object
	size := 0
	for _, indexes := range groupByEntry(objects) {
		source := &source{plaintext: plaintext[objects[indexes[0]].Entry], budget: budget, contents: map[string]content{}}
		for _, i := range indexes {
			o := objects[i]
			data, err := source.content(o)
			switch {
			case ctx.Err() != nil:
				return nil, p.timeoutFailure(r, "writing the files")
			case err != nil:
				found[i] = fmt.Sprintf("file %s from entry %s: %s", display.Quote(o.Path), display.Quote(o.Entry), err)
			}
			contents[i] = data
			size += len(data)
			if len(found) >= failure.MaxProblems || errors.Is(err, document.ErrBudget) || size > maxResponse {
				break // do not spend time or memory on a response that cannot be sent
			}
		}
		if len(found) >= failure.MaxProblems || budget.Left() < 0 || size > maxResponse {
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
	if size <= maxResponse {
		for i, o := range objects {
			resp.Files = append(resp.Files, &v1alpha1.File{Path: o.Path, Mode: int32(o.Mode.Perm()), Contents: contents[i]})
			resp.ObjectVersion = append(resp.ObjectVersion, &v1alpha1.ObjectVersion{
				Id: o.Path, Version: objectVersion(p.config.VersionKey, r.pod.namespace, r.Secret, o.Path, contents[i]),
			})
		}
		size = proto.Size(resp)
	}
	if size > maxResponse {
		return nil, failure.VolumeTooLarge.New(what,
			fmt.Sprintf("they are larger than %d MiB together, the limit of the driver for one volume", maxResponse>>20),
			"objects in the class: use fewer entries, or several classes and volumes")
	}
	return resp, nil
}

// groupByEntry returns the indexes of the objects of each entry, in the order in which the entries first occur.
func groupByEntry(objects []class.Object) (groups [][]int) {
	group := map[string]int{}
	for i, o := range objects {
		n, ok := group[o.Entry]
		if !ok {
			n = len(groups)
			group[o.Entry] = n
			groups = append(groups, nil)
		}
		groups[n] = append(groups[n], i)
	}
	return groups
}

// source is the plaintext of an entry. It parses the plaintext as a document once, and extracts each field and encoding
// once.
type source struct {
	plaintext []byte
	budget    *document.Budget
	doc       *document.Document
	docErr    error
	contents  map[string]content // by field and encoding
}

type content struct {
	data []byte
	err  error
}

func (s *source) content(o class.Object) ([]byte, error) {
	key := fmt.Sprintf("%q %s", o.Field, o.Encoding)
	c, ok := s.contents[key]
	if !ok {
		c.data, c.err = s.extract(o)
		s.contents[key] = c
	}
	return c.data, c.err
}

func (s *source) extract(o class.Object) ([]byte, error) {
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
