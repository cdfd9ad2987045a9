{{- /*
The NetworkPolicy of a part: include "secretmanager.networkPolicy" (list $ "provider" "metrics").
Without a third element nobody connects to the part's pods.
*/ -}}
{{- define "secretmanager.networkPolicy" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $policy := $root.Values.networkPolicy -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $root.Values.name }}-{{ $part }}
  labels: {{ include "secretmanager.labels" (list $root $part) }}
spec:
  podSelector:
    matchLabels: {{ include "secretmanager.selector" (list $root $part) }}
  policyTypes: [Ingress{{ if $policy.egress.enabled }}, Egress{{ end }}]
  {{- if gt (len .) 2 }}
  ingress:
  - ports: [{port: {{ index . 2 }}}]
    {{- with $policy.metricsFrom }}
    from:
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- if $policy.egress.enabled }}
  egress:
  # Anywhere: no selector names the API server, DNS and a Vault outside of the cluster.
  - ports:
    {{- toYaml $policy.egress.ports | nindent 4 }}
  {{- end }}
{{- end -}}
