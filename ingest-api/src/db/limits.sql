-- What limits are judged by: $1 roles of the company's own, $2 people, $3 to $6 whose acts of which day are counted,
-- $7 approvals that may have been spent.
select
    coalesce((
        select jsonb_agg(jsonb_build_object('role_id', r.role_id, 'name', r.name, 'rules', r.rules, 'version', r.version))
        from roles r
        where r.role_id = any ($1)
           or r.role_id = any (array(select g.role_id from grants g where g.user_id = any ($2) and g.role_id is not null))
    ), '[]')::text,
    coalesce((
        select jsonb_agg(jsonb_build_object('user_id', u.user_id, 'grants', coalesce((
                   select jsonb_agg(jsonb_build_object('role', g.role, 'location_id', g.location_id))
                   from grants g where g.user_id = u.user_id), '[]')))
        from users u where u.user_id = any ($2) and u.is_active
    ), '[]')::text,
    (
        select array_agg(coalesce(a.ordinal, 0) order by w.place)
        from unnest($3::uuid[], $4::uuid[], $5::date[], $6::text[]) with ordinality
             as w (user_id, location_id, business_date, act, place)
        left join lateral (
            select l.ordinal from limited_acts l
            where l.user_id = w.user_id and l.location_id = w.location_id and l.business_date = w.business_date
              and l.act = w.act
            order by l.ordinal desc limit 1
        ) a on true
    ),
    (select array_agg(approval_id) from approvals where approval_id = any ($7))
