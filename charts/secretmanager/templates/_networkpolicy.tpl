{{- /*
The NetworkPolicy of a component: include "secretmanager.networkPolicy" (list $ "provider" "metrics").
The third element is the one port that accepts connections. Without it nothing can connect to the pods.
*/ -}}
{{- define "secretmanager.networkPolicy" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $policy := $root.Values.networkPolicy -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "secretmanager.fullname" $root }}-{{ $component }}
  labels:
    {{- include "secretmanager.labels" (list $root $component) | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "secretmanager.selectorLabels" (list $root $component) | nindent 6 }}
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
  # To any destination: no selector matches the API server, DNS and a Vault outside of the cluster.
  - ports:
    {{- toYaml $policy.egress.ports | nindent 4 }}
  {{- end }}
{{- end -}}
