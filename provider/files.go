package provider

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// maxAnswer is what the driver accepts unless told otherwise. Beyond, its gRPC
// would say ResourceExhausted, which is one of the codes that must not be.
const maxAnswer = 4 << 20

// encoding is how a file's content is encoded in the plaintext.
type encoding string

const (
	asIs    encoding = "utf-8"
	base64d encoding = "base64"
	hexed   encoding = "hex"
)

func parseEncoding(s string) (encoding, error) {
	switch e := encoding(s); e {
	case asIs, base64d, hexed:
		return e, nil
	}
	return "", fmt.Errorf("%s is not one of %s, %s, %s", quote(s), asIs, base64d, hexed)
}

// decode returns the content. White space around it is that of the editor it
// was written with. The error does not repeat any of it.
func (e encoding) decode(data []byte) ([]byte, error) {
	switch e {
	case base64d:
		text := bytes.TrimSpace(data)
		out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(out, text)
		if err != nil {
			return nil, fmt.Errorf("it is not base64: %w", err) // which says where
		}
		return out[:n], nil
	case hexed:
		text := bytes.TrimSpace(data)
		out := make([]byte, hex.DecodedLen(len(text)))
		if _, err := hex.Decode(out, text); err != nil {
			return nil, fmt.Errorf("it is not hex digits, two for each byte")
		}
		return out, nil
	}
	return data, nil
}

// files makes the answer from the plaintext of each entry.
func (p *Provider) files(ctx context.Context, r *request, objects []object, plaintext map[string][]byte) (*v1alpha1.MountResponse, *failure) {
	resp := &v1alpha1.MountResponse{}
	documents := map[string]*document{}
	var problems []string
	size := 0
	for _, o := range objects {
		if ctx.Err() != nil {
			return nil, p.late(r, "writing the files")
		}
		content, err := o.content(plaintext, documents)
		if err != nil {
			problems = append(problems, fmt.Sprintf("file %s from entry %s: %s", quote(o.path), quote(o.entry), err))
			continue
		}
		if size += len(content); size > maxAnswer {
			break // before memory is filled with what cannot be sent
		}
		resp.Files = append(resp.Files, &v1alpha1.File{Path: o.path, Mode: int32(o.mode.Perm()), Contents: content})
		resp.ObjectVersion = append(resp.ObjectVersion, &v1alpha1.ObjectVersion{
			Id: o.path, Version: objectVersion(p.config.VersionKey, r.pod.namespace, r.secret, o.path, content),
		})
	}
	if len(problems) > 0 {
		return nil, fail(codes.FailedPrecondition, "making the files of "+r.place(), list(problems),
			"objects in the class, and the plaintext with `secretmanager edit`")
	}
	if size = max(size, proto.Size(resp)); size > maxAnswer {
		return nil, fail(codes.FailedPrecondition, "making the files of "+r.place(),
			fmt.Sprintf("they are more than the %d MiB that the driver takes in one volume", maxAnswer>>20),
			"objects in the class: take fewer entries, or spread them over several classes and volumes")
	}
	return resp, nil
}

// content makes one file. Each plaintext is read as a document once only.
func (o object) content(plaintext map[string][]byte, documents map[string]*document) ([]byte, error) {
	data := plaintext[o.entry]
	if o.field != nil {
		doc, ok := documents[o.entry]
		if !ok {
			var err error
			if doc, err = parseDocument(data); err != nil {
				return nil, err
			}
			documents[o.entry] = doc
		}
		var err error
		if data, err = doc.get(o.field); err != nil {
			return nil, err
		}
	}
	return o.encoding.decode(data)
}
