package secretlist

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Fields of k8s.io/apimachinery/pkg/runtime/generated.proto and k8s.io/api/core/v1/generated.proto.
const (
	unknownRaw    = 2 // runtime.Unknown: the encoded object
	listMeta      = 1 // SecretList
	listItems     = 2
	protobufMagic = "k8s\x00"
)

// summary returns the token of the next page and the number of Secrets. In protobuf, which the programs request,
// that needs no decoding of the Secrets, which takes longer than to request them. Each decodes them meanwhile.
func (p *page) summary() (next string, n int, err error) {
	text, isProtobuf := bytes.CutPrefix(p.text, []byte(protobufMagic))
	if !isProtobuf {
		if err := p.decode(); err != nil {
			return "", 0, err
		}
		return p.list.Continue, len(p.list.Items), nil
	}
	var raw []byte
	var meta metav1.ListMeta
	err = eachField(text, func(number protowire.Number, value []byte) error {
		if number == unknownRaw {
			raw = value
		}
		return nil
	})
	if err != nil {
		return "", 0, err
	}
	err = eachField(raw, func(number protowire.Number, value []byte) error {
		switch number {
		case listMeta:
			return meta.Unmarshal(value)
		case listItems:
			n++
		}
		return nil
	})
	return meta.Continue, n, err
}

// eachField calls visit for each field of a message that has a length.
func eachField(message []byte, visit func(protowire.Number, []byte) error) error {
	for len(message) > 0 {
		number, kind, length := protowire.ConsumeTag(message)
		if length < 0 {
			return errNoList
		}
		message = message[length:]
		if length = protowire.ConsumeFieldValue(number, kind, message); length < 0 {
			return errNoList
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message)
			if err := visit(number, value); err != nil {
				return errNoList
			}
		}
		message = message[length:]
	}
	return nil
}
