package rotator

// entryRef names an entry; with empty parts a Secret or a namespace.
type entryRef struct{ namespace, name, entry string }

func (r entryRef) String() string {
	s := r.namespace
	if s == "" {
		s = "(all namespaces)"
	}
	if r.name != "" {
		s += "/" + r.name
	}
	if r.entry != "" {
		s += "/" + r.entry
	}
	return s
}

func (r entryRef) left(reason string) Left {
	return Left{Namespace: r.namespace, Name: r.name, Entry: r.entry, Reason: reason}
}
